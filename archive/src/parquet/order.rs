//! The first pass: where each line is, in the order in which the rows are wanted.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
};

use super::{ParquetOptions, Slice, SortBy, Understand};

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// Without its line break.
    pub(super) length: u32,
}

struct Sortable {
    /// Place of the user's name among all names; the last when it has none.
    user: u32,
    time: i64,
    place: Place,
}

/// The places of all lines that are wanted.
pub(super) fn in_order(
    file: &File,
    options: &ParquetOptions,
    understand: &dyn Understand,
) -> io::Result<Vec<Place>> {
    let mut rows: Vec<Sortable> = Vec::new();
    // Each name once: there are far fewer users than records.
    let mut users: HashMap<Box<str>, u32> = HashMap::new();
    let mut too_long = None;
    each_line(file, |offset, record| {
        let row = understand.row(record);
        if options.only.is_some_and(|only| Slice::of(&row) != only) {
            return;
        }
        let Ok(length) = u32::try_from(record.len()) else {
            too_long = Some(offset);
            return;
        };
        let user = match options.sort_by {
            SortBy::Time => 0,
            SortBy::User if row.user.is_empty() => u32::MAX,
            SortBy::User => match users.get(&*row.user) {
                Some(number) => *number,
                None => {
                    let number = u32::try_from(users.len()).unwrap_or(u32::MAX);
                    users.insert(row.user.as_ref().into(), number);
                    number
                }
            },
        };
        rows.push(Sortable { user, time: row.time_ms.unwrap_or(i64::MAX), place: Place { offset, length } });
    })?;
    if let Some(offset) = too_long {
        let what = format!("the line at byte {offset} is longer than any record");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    if options.sort_by == SortBy::User {
        // From the number in order of appearance to the one in order of names.
        let mut names: Vec<(&str, u32)> = users.iter().map(|(name, number)| (&**name, *number)).collect();
        names.sort_unstable();
        let mut ranks = vec![u32::MAX; names.len()];
        for (rank, (_, number)) in names.iter().enumerate() {
            ranks[*number as usize] = u32::try_from(rank).unwrap_or(u32::MAX);
        }
        for row in &mut rows {
            row.user = ranks.get(row.user as usize).copied().unwrap_or(u32::MAX);
        }
    }
    rows.sort_unstable_by_key(|row| (row.user, row.time, row.place.offset));
    Ok(rows.into_iter().map(|row| row.place).collect())
}

/// Calls with each line, without its line break, and where it begins.
pub(super) fn each_line(mut file: &File, mut line: impl FnMut(u64, &[u8])) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut bytes, mut offset) = (Vec::new(), 0);
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        line(offset, bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        offset += read as u64;
    }
}
