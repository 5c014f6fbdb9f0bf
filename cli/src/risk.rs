//! Parses `--risk`.

use snug_sizing::engine::{Profile, Risk};

/// Parses a profile's name, or `oom=NUMBER` and `cpu=NUMBER`. A number that is not given is that of the default profile.
pub fn parse(text: &str) -> Result<Risk, String> {
    if let Some(profile) = Profile::ALL.into_iter().find(|profile| profile.as_str() == text) {
        return Ok(profile.risk());
    }
    let mut risk = Profile::default().risk();
    for part in text.split(',') {
        let wrong = || {
            format!("{part:?} is neither a profile (critical, standard, batch) nor oom=NUMBER or cpu=NUMBER")
        };
        let (name, number) = part.split_once('=').ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        match name {
            "oom" => risk.oom_kills = number,
            "cpu" => risk.cpu_work = number,
            _ => return Err(wrong()),
        }
    }
    risk.checked().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn risks() {
        assert_eq!(parse("critical"), Ok(Profile::Critical.risk()));
        let risk = parse("oom=0.001,cpu=0.02").unwrap();
        assert_eq!((risk.oom_kills, risk.cpu_work), (0.001, 0.02));
        assert_eq!(parse("cpu=0.02").unwrap().oom_kills, Profile::Standard.risk().oom_kills);
        for bad in ["", "high", "oom", "oom=", "oom=x", "mem=1", "oom=0", "oom=NaN", "cpu=0.9"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
