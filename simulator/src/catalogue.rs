//! One example of every kind of record that the simulator makes, so that a normaliser can be tried on all of them.

use chrono::{DateTime, Utc};
use schemas::{ContentType, TenantId};
use uuid::Uuid;

use crate::{
    cast::Cast,
    dice::Dice,
    records::{Kind, Logon, MailboxKind, QUIRKS, Record, Scene, kinds},
};

/// One kind of record with an example.
#[derive(Debug, Clone)]
pub struct Example {
    /// The content type under which it arrives.
    pub content_type: ContentType,
    /// `Operation`.
    pub operation: &'static str,
    /// `RecordType`.
    pub record_type: i32,
    /// In which capacity the mailbox was opened; none for what is not mailbox audit.
    pub logon: Option<Logon>,
    /// Whose mailbox; none for what is not mailbox audit.
    pub mailbox: Option<MailboxKind>,
    /// Tells examples of the same operation apart; may be empty. The quirk's name in [`quirk_catalogue`].
    pub variant: &'static str,
    /// The record as the API gives it: one JSON object.
    pub record: Vec<u8>,
}

/// One example of every kind: each mailbox action for each logon type and sort of mailbox, each cmdlet, and the other
/// workloads. The same bytes on every call.
#[must_use]
pub fn catalogue() -> Vec<Example> {
    kinds().iter().enumerate().map(|(number, kind)| example(number, kind, kind.variant, |_| ())).collect()
}

/// One example of every oddity that real records have (see `docs/simulator.md`). Legal JSON objects, all of them, but
/// the fields may be missing, of another type or of another form.
#[must_use]
pub fn quirk_catalogue() -> Vec<Example> {
    QUIRKS
        .iter()
        .enumerate()
        .filter_map(|(number, quirk)| {
            let kind = kinds().iter().find(|kind| (kind.operation, kind.variant) == quirk.on)?;
            Some(example(number, kind, quirk.name, quirk.bend))
        })
        .collect()
}

fn example(number: usize, kind: &Kind, variant: &'static str, bend: impl Fn(&mut Record)) -> Example {
    let tenant = TenantId::new(Uuid::from_u128(0x0a1b_2c3d_0000_4000_8000_0000_0000_0001));
    let cast = Cast::new(0, tenant, "contoso.onmicrosoft.com", 25, 4, 3);
    let mut dice = Dice::new(&[0, number as u64]);
    let at = DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::seconds(1_790_000_000 + 61 * number as i64);
    let id = dice.guid();
    let mut scene = Scene { cast: &cast, dice, episode: Dice::new(&[0, 9]), id, at, dlp_detail: true };
    let mut record = kind.record(&mut scene);
    bend(&mut record);
    let mut bytes = Vec::new();
    record.write(number as u64, &mut bytes);
    Example {
        content_type: kind.content_type,
        operation: kind.operation,
        record_type: kind.record_type,
        logon: kind.logon,
        mailbox: kind.mailbox,
        variant,
        record: bytes,
    }
}
