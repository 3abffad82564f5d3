//! Points in time for users, in the time zone of this machine.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Formats a time like a clock: `09:12` if it is on the same day as `now`, else `2026-12-01 09:12`.
/// In UTC, with that word, if the machine has no time zone.
#[must_use]
pub fn local(at: SystemTime, now: SystemTime) -> String {
    match TimeZone::try_system() {
        Ok(zone) => in_zone(at, now, &zone),
        Err(_) => in_zone(at, now, &TimeZone::UTC),
    }
}

fn in_zone(at: SystemTime, now: SystemTime, zone: &TimeZone) -> String {
    let (Ok(at), Ok(now)) = (Timestamp::try_from(at), Timestamp::try_from(now)) else {
        return "an invalid time".to_owned();
    };
    let (at, now) = (
        at.to_zoned_datetime(zone.clone()),
        now.to_zoned_datetime(zone.clone()),
    );
    let form = match at.date() == now.date() {
        true => "%H:%M",
        false => "%Y-%m-%d %H:%M",
    };
    let is_utc = *zone == TimeZone::UTC || zone.is_unknown();
    format!("{}{}", at.strftime(form), if is_utc { " UTC" } else { "" })
}

/// Formats a time for a log on a terminal: `09:12:05`.
#[must_use]
pub fn clock(at: SystemTime) -> String {
    form(at, &system_zone(), "%H:%M:%S")
}

/// Formats a time for a log in a file, with date and offset: `2026-12-01T09:12:05+01:00`.
#[must_use]
pub fn stamp(at: SystemTime) -> String {
    form(at, &system_zone(), "%Y-%m-%dT%H:%M:%S%:z")
}

fn system_zone() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

fn form(at: SystemTime, zone: &TimeZone, form: &str) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => at
            .to_zoned_datetime(zone.clone())
            .strftime(form)
            .to_string(),
        Err(_) => "an invalid time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn another_day_gets_its_date() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let noon = at(1_798_884_720);
        for (time, expected) in [
            (noon, "12:12"),
            (at(1_798_884_720 - 3600), "11:12"),
            (at(1_798_884_720 + 43_200), "2027-01-03 00:12"),
        ] {
            assert_eq!(in_zone(time, noon, &zone), expected);
        }
        assert_eq!(in_zone(noon, noon, &TimeZone::UTC), "10:12 UTC");
    }

    #[test]
    fn log_times_have_seconds_and_an_offset() {
        let at = UNIX_EPOCH + Duration::from_secs(1_796_043_801);
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(form(at, &zone, "%H:%M:%S"), "08:03:21");
        assert_eq!(
            form(at, &zone, "%Y-%m-%dT%H:%M:%S%:z"),
            "2026-11-30T08:03:21-05:00"
        );
        assert_eq!(clock(at).len(), 8);
        assert_eq!(stamp(at).len(), 25);
    }
}
