//! Names of the record types.
//!
//! `RecordType` is a number on the wire. The table holds the names that Microsoft documents (Office 365 Management
//! Activity API schema, "AuditLogRecordType") and, for numbers that it leaves out, those that follow from the order of
//! the same enumeration in Microsoft Graph. Numbers were given new names in the past, so the number is the truth and the
//! name its decoration; a number without a name is no error.

use std::sync::LazyLock;

static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for line in include_str!("../data/record_types.tsv").lines() {
        let Some((number, name)) = line.split_once('\t') else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        if names.len() <= number {
            names.resize(number + 1, "");
        }
        names[number] = name;
    }
    names
});

/// The name of a record type, such as `ExchangeItemAggregated` for 50.
#[must_use]
pub fn record_type_name(number: i64) -> Option<&'static str> {
    let name = *NAMES.get(usize::try_from(number).ok()?)?;
    (!name.is_empty()).then_some(name)
}

/// The number of a record type by its name, in any case.
#[must_use]
pub fn record_type_number(name: &str) -> Option<i64> {
    let known = |candidate: &str| !candidate.is_empty() && candidate.eq_ignore_ascii_case(name);
    NAMES.iter().position(|candidate| known(candidate)).and_then(|number| i64::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_types_have_their_names_and_unknown_numbers_none() {
        for (number, name) in [
            (1, "ExchangeAdmin"),
            (2, "ExchangeItem"),
            (3, "ExchangeItemGroup"),
            (19, "ExchangeAggregatedOperation"),
            (50, "ExchangeItemAggregated"),
            (101, "ExchangeSearch"),
        ] {
            assert_eq!(record_type_name(number), Some(name));
            assert_eq!(record_type_number(&name.to_lowercase()), Some(number));
        }
        for number in [-1, 0, 140, 99_999, i64::MIN, i64::MAX] {
            assert_eq!(record_type_name(number), None, "{number}");
        }
        assert_eq!(record_type_number(""), None);
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = include_str!("../data/record_types.tsv").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (number, name) = line.split_once('\t').unwrap();
            assert_eq!(record_type_name(number.parse().unwrap()), Some(name));
        }
    }
}
