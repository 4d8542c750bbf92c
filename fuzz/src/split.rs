//! What holds for any bytes that are taken for a blob's body: in whatever chunks they arrive, the same records come out with
//! the same keys, and the same is wrong with them. Panics with what does not hold.

use schemas::{RecordKey, SplitError, Splitter};

type Outcome = (Vec<(Vec<u8>, Option<RecordKey>)>, Result<(), SplitError>);

fn split(body: &[u8], mut next: impl FnMut() -> usize) -> Outcome {
    let (mut splitter, mut records, mut rest) = (Splitter::new(), Vec::new(), body);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(next().clamp(1, rest.len()));
        rest = after;
        let pushed = splitter.push(chunk, &mut |record, key| records.push((record.to_vec(), key)));
        if let Err(error) = pushed {
            return (records, Err(error));
        }
    }
    (records, splitter.finish())
}

/// Splits the body whole, byte by byte and in chunks whose lengths come from its own bytes, and compares.
pub(crate) fn check(body: &[u8]) {
    let whole = split(body, || body.len());
    assert_eq!(split(body, || 1), whole, "byte by byte");
    let mut lengths = body.iter().rev().cycle();
    let uneven = split(body, || lengths.next().map_or(1, |byte| usize::from(*byte % 17)));
    assert_eq!(uneven, whole, "in uneven chunks");
    // What is legal JSON is taken apart as a parser would.
    if let Ok(values) = serde_json::from_slice::<Vec<serde_json::Value>>(body) {
        assert_eq!(whole.1, Ok(()), "a legal array is refused");
        assert_eq!(whole.0.len(), values.len(), "another number of records");
        for ((record, _), value) in whole.0.iter().zip(&values) {
            let parsed: serde_json::Value =
                serde_json::from_slice(record).expect("a record of a legal array is legal");
            assert_eq!(&parsed, value);
        }
    }
}
