//! The `nextPage` of a listing: which place of which listing a page begins at.

use chrono::{DateTime, Utc};

use crate::{dice::hash, window::Window};

/// The place at which a page begins. In a NextPageUri: the instant of the first page and the place, sealed so that
/// one made up or from another window is not taken.
pub(crate) struct Place {
    pub(crate) at: DateTime<Utc>,
    pub(crate) offset: usize,
}

pub(crate) fn seal(seed: u64, window: Window, place: &Place) -> String {
    let (at, offset) = (place.at.timestamp_millis(), place.offset as u64);
    let sum = hash(&[
        seed,
        window.start.timestamp_millis() as u64,
        window.end.timestamp_millis() as u64,
        at as u64,
        offset,
    ]);
    format!("{at:x}.{offset:x}.{:08x}", sum as u32)
}

pub(crate) fn unseal(seed: u64, window: Window, text: &str) -> Option<Place> {
    let mut parts = text.split('.');
    let at = DateTime::from_timestamp_millis(i64::from_str_radix(parts.next()?, 16).ok()?)?;
    let place = Place { at, offset: usize::from_str_radix(parts.next()?, 16).ok()? };
    (seal(seed, window, &place) == text).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_good_for_its_own_listing_only() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let window = Window { start: at("2026-11-20T00:00:00Z"), end: at("2026-11-20T12:00:00Z") };
        let text = seal(1, window, &Place { at: at("2026-11-20T13:00:00Z"), offset: 200 });
        let place = unseal(1, window, &text).unwrap();
        assert_eq!((place.at, place.offset), (at("2026-11-20T13:00:00Z"), 200));
        assert!(unseal(2, window, &text).is_none(), "another feed");
        assert!(
            unseal(1, Window { end: at("2026-11-20T11:00:00Z"), ..window }, &text).is_none(),
            "another window"
        );
        for bad in ["", ".", "x.y.z", "1.2", &text.replacen('.', ".1", 1), &format!("{text}0")] {
            assert!(unseal(1, window, bad).is_none(), "{bad}");
        }
    }
}
