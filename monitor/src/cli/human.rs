//! Quantities for people.

use std::time::Duration;

use monitor_core::time::Timestamp;

/// Bytes in binary units, as kubectl and top write them: `512`, `1.8Ki`, `91Mi`.
pub(super) fn bytes(count: u64) -> String {
    scaled(count, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// A count in decimal units: `950`, `12.3k`, `4.1M`.
pub(super) fn count(count: u64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

fn scaled(count: u64, base: u64, units: &[&str]) -> String {
    let (mut whole, mut tenths, mut unit) = (count, 0, 0);
    while whole >= base && unit + 1 < units.len() {
        tenths = (whole % base) * 10 / base;
        whole /= base;
        unit += 1;
    }
    match unit {
        0 => format!("{whole}"),
        _ if whole < 100 => format!("{whole}.{tenths}{}", units[unit]),
        _ => format!("{whole}{}", units[unit]),
    }
}

/// A duration with the two units that matter: `212us`, `1.2ms`, `3.4s`, `5m12s`, `2h3m`, `4d1h`.
pub(super) fn duration(duration: Duration) -> String {
    let (micros, seconds) = (duration.as_micros(), duration.as_secs());
    match seconds {
        0 if micros < 1_000 => format!("{micros}us"),
        0 => format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100),
        1..60 => format!("{seconds}.{}s", duration.subsec_millis() / 100),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// The time of day in UTC: `10:00:01.123Z`.
pub(super) fn time_of_day(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(11..23)
        .map_or_else(|| text.clone(), |clock| format!("{clock}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        for (number, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0Ki"),
            (1833, "1.7Ki"),
            (102_400, "100Ki"),
            (5 << 30, "5.0Gi"),
            (u64::MAX, "15.9Ei"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(
            (count(999), count(1_234), count(1_234_567)),
            ("999".into(), "1.2k".into(), "1.2M".into())
        );
        for (micros, text) in [
            (0, "0us"),
            (212, "212us"),
            (1_250, "1.2ms"),
            (999_999, "999.9ms"),
            (3_450_000, "3.4s"),
            (312_000_000, "5m12s"),
            (7_380_000_000, "2h3m"),
            (349_200_000_000, "4d1h"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
        let time = "2026-11-24T10:00:01.123456789Z".parse().expect("a time");
        assert_eq!(time_of_day(time), "10:00:01.123Z");
    }
}
