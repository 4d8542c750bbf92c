//! The first pass: where each line is, in the order in which the rows are wanted.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
};

use super::{ASK_AFTER, Lines, ParquetOptions, Slice, SortBy};

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

/// Numbers for users, each name once: there are far fewer users than records.
#[derive(Default)]
struct Users(HashMap<Box<str>, u32>);

impl Users {
    const NOBODY: u32 = u32::MAX;

    fn number(&mut self, user: &str) -> u32 {
        if user.is_empty() {
            return Self::NOBODY;
        }
        if let Some(number) = self.0.get(user) {
            return *number;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(Self::NOBODY);
        self.0.insert(user.into(), number);
        number
    }

    /// From a number to the user's place in the order of names.
    fn ranks(&self) -> Vec<u32> {
        let mut names: Vec<(&str, u32)> = self.0.iter().map(|(name, number)| (&**name, *number)).collect();
        names.sort_unstable();
        let mut ranks = vec![Self::NOBODY; names.len()];
        for (rank, (_, number)) in names.iter().enumerate() {
            ranks[*number as usize] = u32::try_from(rank).unwrap_or(Self::NOBODY);
        }
        ranks
    }
}

/// The places of all lines by the twin that they belong to; `None` when nobody waits for them any more.
pub(super) fn in_order(
    file: &File,
    lines: &Lines<'_>,
    options: &ParquetOptions,
) -> io::Result<Option<BTreeMap<Option<Slice>, Vec<Place>>>> {
    let mut rows: BTreeMap<Option<Slice>, Vec<Sortable>> = BTreeMap::new();
    let mut users = Users::default();
    let whole = each_line(file, lines, |place, record| {
        lines.tell(options.feed, record, |row| {
            let user = match options.sort_by {
                SortBy::Time => 0,
                SortBy::User => users.number(row.user),
            };
            let row_of = Sortable { user, time: row.time_ms.unwrap_or(i64::MAX), place };
            rows.entry(options.sliced.then(|| Slice::of(row))).or_default().push(row_of);
        });
    })?;
    if !whole {
        return Ok(None);
    }
    let ranks = users.ranks();
    let sorted = rows.into_iter().map(|(slice, mut rows)| {
        if options.sort_by == SortBy::User {
            for row in &mut rows {
                row.user = ranks.get(row.user as usize).copied().unwrap_or(Users::NOBODY);
            }
        }
        rows.sort_unstable_by_key(|row| (row.user, row.time, row.place.offset));
        (slice, rows.into_iter().map(|row| row.place).collect())
    });
    Ok(Some(sorted.collect()))
}

/// Calls with each line and its place, without its line break. Whether it came to the end.
fn each_line(mut file: &File, lines: &Lines<'_>, mut line: impl FnMut(Place, &[u8])) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file.take(lines.bytes));
    let (mut bytes, mut offset, mut since) = (Vec::new(), 0, 0);
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(true);
        }
        let wrong = |what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the line at byte {offset} {what}"))
        };
        let record = bytes.strip_suffix(b"\n").ok_or_else(|| wrong("is cut off"))?;
        let length = u32::try_from(record.len()).map_err(|_| wrong("is longer than any record"))?;
        line(Place { offset, length }, record);
        offset += read as u64;
        since += read;
        if since >= ASK_AFTER {
            since = 0;
            if (lines.cancelled)() {
                return Ok(false);
            }
        }
    }
}
