use proptest::prelude::*;

use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn numbers_are_exact() {
    for (text, nanos) in [
        ("0", 0),
        ("100n", 100),
        ("100u", 100_000),
        ("100m", 100_000_000),
        ("1.5", 1_500_000_000),
        (".5", 500_000_000),
        ("5.", 5 * ONE),
        ("+2e3", 2000 * ONE),
        ("2E-3", 2_000_000),
        ("1E", 1_000_000_000_000_000_000 * ONE),
        ("1e+1", 10 * ONE),
        ("12k", 12_000 * ONE),
        ("1G", 1_000_000_000 * ONE),
        ("64Mi", 67_108_864 * ONE),
        ("1.5Ki", 1536 * ONE),
        ("0.1Ki", 102_400_000_000),
        ("-3Gi", -3_221_225_472 * ONE),
        ("128974848", 128_974_848 * ONE),
        ("00012", 12 * ONE),
        ("1.000000000000000000000", ONE),
    ] {
        assert_eq!(quantity(text).nanos(), nanos, "{text}");
    }
}

#[test]
fn finer_than_a_billionth_rounds_away_from_zero() {
    for (text, nanos) in [
        ("0.1n", 1),
        ("-0.1n", -1),
        ("1.0000000001", ONE + 1),
        ("1e-30", 1),
        ("1e-2147483648", 1),
        ("0.0000000001Ki", 103),
        ("0.1234567890123456789Ei", 142_335_986_942_043_633_764_101_068),
    ] {
        assert_eq!(quantity(text).nanos(), nanos, "{text}");
    }
}

#[test]
fn numbers_beyond_the_range_are_capped() {
    for text in [
        "9223372036854775807",
        "9223372036854775808",
        "8Ei",
        "100E",
        "1e2147483647",
        "99999999999999999999Ei",
    ] {
        assert_eq!(quantity(text).value(), i64::MAX, "{text}");
        assert_eq!(quantity(&format!("-{text}")).value(), -i64::MAX, "{text}");
    }
    assert_eq!(quantity("9223372036854775806").value(), i64::MAX - 1);
    assert_eq!(Quantity::from_bytes(u64::MAX).value(), i64::MAX);
}

#[test]
fn each_number_has_one_form() {
    for (text, canonical) in [
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("2000", "2k"),
        ("100000", "100k"),
        ("100001", "100001"),
        ("0Ki", "0"),
        ("-0", "0"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1.5Gi", "1536Mi"),
        ("0.0001Ki", "102400u"),
        ("1.0001Ki", "1024102400u"),
        ("-64Mi", "-64Mi"),
        ("1500000n", "1500u"),
        ("123m", "123m"),
        ("2e3", "2e3"),
        ("1e2", "100"),
        ("1.5e-1", "150e-3"),
        ("12e5", "1200e3"),
        ("1Ei", "1Ei"),
        ("1E", "1E"),
    ] {
        assert_eq!(quantity(text).to_string(), canonical, "{text}");
    }
    assert_eq!(Quantity::from_bytes(128_974_848).to_string(), "123Mi");
    assert_eq!(Quantity::from_millicores(2500).to_string(), "2500m");
    assert_eq!(Quantity::from_nanocores(1_230_000).to_string(), "1230u");
    assert_eq!(Quantity::from_millicores(64_000).with_format(Format::BinarySi).to_string(), "64");
}

#[test]
fn millis_and_value_round_away_from_zero() {
    let q = quantity("1.0001");
    assert_eq!((q.value(), q.millis()), (2, 1001));
    let q = quantity("-1.0001");
    assert_eq!((q.value(), q.millis()), (-2, -1001));
    assert!(quantity("1000m") == quantity("1") && quantity("1Ki") > quantity("1k"));
}

#[test]
fn invalid_quantities_are_errors() {
    for (text, why) in [
        ("", Why::Empty),
        (".", Why::NoNumber),
        ("-", Why::NoNumber),
        ("Mi", Why::NoNumber),
        ("--1", Why::NoNumber),
        (" 1", Why::NoNumber),
        ("1 ", Why::Suffix),
        ("1i", Why::Suffix),
        ("1K", Why::Suffix),
        ("1ki", Why::Suffix),
        ("64MB", Why::Suffix),
        ("1.1.M", Why::Suffix),
        ("1+1.0M", Why::Suffix),
        ("0.1mi", Why::Suffix),
        ("1e", Why::Exponent),
        ("3e-", Why::Exponent),
        ("1e3Ki", Why::Exponent),
        ("1e99999999999", Why::Exponent),
    ] {
        let error = text.parse::<Quantity>().unwrap_err();
        assert_eq!(error.why, why, "{text}");
        assert!(error.to_string().starts_with(&format!("{text:?} is not a quantity")), "{error}");
    }
    assert_eq!("1".repeat(65).parse::<Quantity>().unwrap_err().why, Why::TooLong);
}

fn suffix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "e-4",
    ])
}

proptest! {
    #[test]
    fn wild_text_never_panics(text in "\\PC{0,80}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn wild_numbers_never_panic(text in "[+-]?[0-9]{0,30}\\.?[0-9]{0,30}", suffix in suffix()) {
        if let Ok(q) = format!("{text}{suffix}").parse::<Quantity>() {
            prop_assert!(q.nanos().abs() <= MAX);
        }
    }

    #[test]
    fn the_canonical_form_means_the_same_and_is_stable(whole in any::<u32>(), fraction in 0_u32..1_000_000, suffix in suffix()) {
        let q = quantity(&format!("{whole}.{fraction}{suffix}"));
        let text = q.to_string();
        prop_assert_eq!(quantity(&text), q);
        prop_assert_eq!(quantity(&text).to_string(), text.clone());
        prop_assert!(!text.contains('.'));
    }

    #[test]
    fn integers_agree_with_plain_arithmetic(number in 0_u64..1 << 33, power in 0_u32..3) {
        let suffix = ["", "Ki", "Mi"][power as usize];
        let bytes = number * 1024_u64.pow(power);
        prop_assert_eq!(quantity(&format!("{number}{suffix}")), Quantity::from_bytes(bytes));
    }

    #[test]
    fn binary_fractions_agree_with_plain_arithmetic(digits in 1_u64..1_000_000_000, power in prop::sample::select(vec![10_u32, 20, 30])) {
        let suffix = match power { 10 => "Ki", 20 => "Mi", _ => "Gi" };
        // 0.ddddddddd × 2^power is a whole number of billionths.
        prop_assert_eq!(quantity(&format!("0.{digits:09}{suffix}")).nanos(), i128::from(digits) << power);
    }

    #[test]
    fn order_is_that_of_the_numbers(a in any::<i32>(), b in any::<i32>()) {
        prop_assert_eq!(quantity(&a.to_string()).cmp(&quantity(&b.to_string())), a.cmp(&b));
    }
}
