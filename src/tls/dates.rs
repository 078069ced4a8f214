//! When a certificate is valid: the two dates are read from its DER, for nothing that is in the crate anyway tells them.
//!
//! Plain functions over bytes. Whatever the bytes are, they never panic: what cannot be read is `None`. Nothing is verified
//! here; that a client's certificate has not expired is rustls' to see.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// `[0] EXPLICIT`: the version, which certificates of version 1 do not have.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first moment at which a certificate is valid and the last: `Validity` of RFC 5280, 4.1.2.5.
pub(super) fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if let Some((_version, rest)) = element(fields, VERSION) {
        fields = rest;
    }
    let (_serial, fields) = element(fields, INTEGER)?;
    let (_signature, fields) = element(fields, SEQUENCE)?;
    let (_issuer, fields) = element(fields, SEQUENCE)?;
    let (validity, _) = element(fields, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some((not_before, not_after))
}

/// The content of the element that begins here, if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first != tag {
        return None;
    }
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (long.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A `Time`, and what follows it. RFC 5280 allows two forms, both in UTC and with seconds.
fn time(bytes: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (year, text, rest) = if let Some((text, rest)) = element(bytes, UTC_TIME) {
        let (year, text) = digits(text, 2)?;
        // Two digits reach from 1950 to 2049.
        (if year < 50 { 2000 + year } else { 1900 + year }, text, rest)
    } else {
        let (text, rest) = element(bytes, GENERALIZED_TIME)?;
        let (year, text) = digits(text, 4)?;
        (year, text, rest)
    };
    let (month, text) = digits(text, 2)?;
    let (day, text) = digits(text, 2)?;
    let (hour, text) = digits(text, 2)?;
    let (minute, text) = digits(text, 2)?;
    let (second, text) = digits(text, 2)?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    if !in_range || minute > 59 || second > 60 || text != b"Z" {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if seconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    Some((time?, rest))
}

/// So many decimal digits as a number, and what follows them.
fn digits(text: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(count)?;
    let number = |sum, digit: &u8| Some(sum * 10 + i64::from((*digit as char).to_digit(10)?));
    Some((digits.iter().try_fold(0, number)?, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the day that is missing in
/// most of them is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn utc(text: &str) -> Option<SystemTime> {
        let bytes = [&[UTC_TIME, text.len() as u8], text.as_bytes()].concat();
        time(&bytes).map(|(time, _)| time)
    }

    fn generalized(text: &str) -> Option<SystemTime> {
        let bytes = [&[GENERALIZED_TIME, text.len() as u8], text.as_bytes()].concat();
        time(&bytes).map(|(time, _)| time)
    }

    #[test]
    fn dates_of_both_forms_are_read() {
        assert_eq!(utc("700101000000Z"), Some(at(0)));
        assert_eq!(utc("260228235959Z"), Some(at(1_772_323_199)));
        assert_eq!(utc("491231235959Z"), Some(at(2_524_607_999)));
        assert_eq!(generalized("20000229120000Z"), Some(at(951_825_600)));
        assert_eq!(generalized("20500101000000Z"), Some(at(2_524_608_000)));
        assert_eq!(generalized("99991231235959Z"), Some(at(253_402_300_799)));
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
        assert_eq!(utc("691231000000Z"), Some(before));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "700101000000", "701301000000Z", "700100000000Z", "7001010000Z", "70010100000aZ"]
        {
            assert_eq!(utc(text), None, "{text}");
        }
        assert_eq!(generalized("20260101000000+0100"), None);
        assert_eq!(utc("700101240000Z"), None);
    }

    #[test]
    fn the_dates_of_a_certificate_are_those_it_was_made_with() {
        let key = rcgen::KeyPair::generate().unwrap();
        for year in [1999, 2024, 2049, 2050, 3000] {
            let mut parameters = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
            parameters.not_before = rcgen::date_time_ymd(1990, 1, 2);
            parameters.not_after = rcgen::date_time_ymd(year, 3, 1);
            let expected = (parameters.not_before.into(), parameters.not_after.into());
            let certificate = parameters.self_signed(&key).unwrap();
            assert_eq!(validity(certificate.der()), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = validity(&bytes);
            let _ = time(&bytes);
        }

        #[test]
        fn a_day_follows_a_day(number in -200_000_i64..3_000_000) {
            // Every day has exactly one date: the first of a month follows the last of the one before.
            let year = 1970 + number / 366;
            for month in 1..=12 {
                let length = match month {
                    2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
                    2 => 28,
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
                prop_assert_eq!(days(year, month, length) + 1, next);
            }
        }
    }
}
