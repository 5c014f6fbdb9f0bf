//! Parses `--price`.

use snug_sizing::cost::Prices;

/// Parses `cpu=NUMBER,memory=NUMBER`: hourly prices of a core and of a GiB. A price that is not given is 0.
pub fn parse(text: &str) -> Result<Prices, String> {
    let mut prices = Prices { core_hour: 0.0, gib_hour: 0.0 };
    for part in text.split(',') {
        let wrong =
            || format!("{part:?} is neither cpu=PRICE (per core-hour) nor memory=PRICE (per GiB-hour)");
        let (name, number) = part.split_once('=').ok_or_else(wrong)?;
        let price: f64 =
            number.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0).ok_or_else(wrong)?;
        match name {
            "cpu" => prices.core_hour = price,
            "memory" => prices.gib_hour = price,
            _ => return Err(wrong()),
        }
    }
    Ok(prices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices() {
        assert_eq!(parse("cpu=0.03,memory=0.004"), Ok(Prices { core_hour: 0.03, gib_hour: 0.004 }));
        assert_eq!(parse("memory=1"), Ok(Prices { core_hour: 0.0, gib_hour: 1.0 }));
        for bad in ["", "cpu", "cpu=", "cpu=-1", "cpu=NaN", "disk=1", "cpu=0.03;memory=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
