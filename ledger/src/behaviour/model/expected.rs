//! What a ledger must hold, kept in plain collections.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{PANICS, behaviour::opening::noise, testing::record};

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// A delivery as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) state: &'static str,
    pub(super) seq: u64,
    pub(super) due: u32,
    pub(super) delivered: u32,
    pub(super) filtered: u32,
    pub(super) dead: u32,
    pub(super) not_before: i64,
}

impl Delivery {
    /// One of which nothing is settled.
    fn new(state: &'static str, seq: u64, due: u32) -> Self {
        Self { state, seq, due, delivered: 0, filtered: 0, dead: 0, not_before: 0 }
    }
}

/// A row as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tenant: u8,
    pub(super) name: String,
    pub(super) retry: bool,
    pub(super) restored: bool,
    /// Of a retry: the row whose records it brings again.
    origin: Option<usize>,
    pub(super) expires: i64,
    pub(super) state: &'static str,
    pub(super) not_before: i64,
    pub(super) seq: Option<u64>,
    /// The body's record numbers, and which positions are duplicates.
    pub(super) records: Vec<u64>,
    pub(super) dropped: Vec<u32>,
    pub(super) ended: Option<i64>,
    pub(super) panics: u32,
    pub(super) deliveries: BTreeMap<i64, Delivery>,
}

impl Row {
    /// Records that come again from the ledger itself, for these sinks.
    fn again(tenant: u8, name: String, expires: i64, seq: u64, records: Vec<u64>, sinks: &[i64]) -> Self {
        let fresh = Delivery::new("pending", seq, records.len() as u32);
        Self {
            tenant,
            name,
            retry: true,
            restored: false,
            origin: None,
            expires,
            state: "spooled",
            not_before: 0,
            seq: Some(seq),
            records,
            dropped: Vec::new(),
            ended: None,
            panics: 0,
            deliveries: sinks.iter().map(|sink| (*sink, fresh.clone())).collect(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    /// The row's place among all rows that ever were.
    pub(super) row: usize,
    pub(super) sink: Option<i64>,
    pub(super) number: u64,
    /// The row that retries it, and whether that is settled.
    pub(super) retry: Option<usize>,
    pub(super) done: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Every row in the order of its making; `None` when it was folded.
    pub(super) rows: Vec<Option<Row>>,
    /// The tenant, the name and the expiry of every row, folded ones included.
    pub(super) origins: Vec<(u8, String, i64)>,
    pub(super) letters: Vec<Letter>,
    pub(super) holes: u64,
    pub(super) seqs: BTreeMap<u8, u64>,
    pub(super) watermarks: BTreeMap<u8, i64>,
    pub(super) created: BTreeMap<(u8, u8), i64>,
    /// Who had a record first, and on which day.
    pub(super) owners: HashMap<(u8, u64), (usize, i64)>,
    pub(super) folded_through: i64,
    /// The number of the sink `b`.
    pub(super) b: i64,
    /// Restores in the order of their numbers: the sink's number, lines that are dealt with, records that were put back.
    pub(super) restores: Vec<(i64, u64, u64)>,
    /// The open one of each sink, by its place in that.
    pub(super) open_restores: BTreeMap<i64, usize>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            origins: Vec::new(),
            letters: Vec::new(),
            holes: 0,
            seqs: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            created: BTreeMap::new(),
            owners: HashMap::new(),
            folded_through: 0,
            b: 2,
            restores: Vec::new(),
            open_restores: BTreeMap::new(),
        }
    }
}

/// The records of the blob with this name: blobs overlap, and some repeat a record of their own.
fn numbers(name: u8) -> Vec<u64> {
    let first = u64::from(name) * 2;
    match name % 5 {
        0 => Vec::new(),
        1 => vec![first, first + 1, first, first + 2],
        _ => (first..first + 4).collect(),
    }
}

pub(super) fn text(numbers: &[u64]) -> String {
    let records: Vec<_> = numbers.iter().map(|number| record(*number, &noise(600))).collect();
    format!("[{}]", records.join(","))
}

fn day(micros: i64) -> i64 {
    micros.div_euclid(86_400_000_000)
}

impl Model {
    pub(super) fn row(&mut self, index: usize) -> &mut Row {
        self.rows[index].as_mut().unwrap()
    }

    fn push(&mut self, row: Row) {
        self.origins.push((row.tenant, row.name.clone(), row.expires));
        self.rows.push(Some(row));
    }

    pub(super) fn take_seq(&mut self, tenant: u8) -> u64 {
        let seq = self.seqs.entry(tenant).or_default();
        *seq += 1;
        *seq
    }

    pub(super) fn sink(&self, name: char) -> i64 {
        if name == 'a' { 1 } else { self.b }
    }

    pub(super) fn list(&mut self, tenant: u8, name: u8, now: i64) {
        let created = *self.created.entry((tenant, name)).or_insert(now);
        let expires = created + 7 * DAY;
        let known = self
            .rows
            .iter()
            .flatten()
            .any(|row| !row.retry && row.tenant == tenant && row.name == name.to_string());
        if expires >= self.folded_through && !known {
            self.push(Row {
                tenant,
                name: name.to_string(),
                retry: false,
                restored: false,
                origin: None,
                expires,
                state: "listed",
                not_before: 0,
                seq: None,
                records: Vec::new(),
                dropped: Vec::new(),
                ended: None,
                panics: 0,
                deliveries: BTreeMap::new(),
            });
        }
    }

    pub(super) fn spool(&mut self, index: usize, now: i64) {
        let (tenant, name) = (self.row(index).tenant, self.row(index).name.parse().unwrap());
        let records = numbers(name);
        let mut own = BTreeSet::new();
        let mut dropped = Vec::new();
        for (position, number) in records.iter().enumerate() {
            let elsewhere = self
                .owners
                .get(&(tenant, *number))
                .is_some_and(|(owner, seen)| *owner != index && day(now) <= seen + 8);
            if elsewhere || !own.insert(*number) {
                dropped.push(position as u32);
            }
        }
        for number in &records {
            let owner = self.owners.entry((tenant, *number)).or_insert((index, day(now)));
            if day(now) > owner.1 + 8 {
                owner.0 = index;
            }
            owner.1 = owner.1.max(day(now));
        }
        let seq = self.take_seq(tenant);
        let due = (records.len() - dropped.len()) as u32;
        let sinks = [1, self.b];
        let row = self.row(index);
        (row.state, row.seq, row.not_before) = ("spooled", Some(seq), 0);
        (row.records, row.dropped) = (records, dropped);
        let state = if due == 0 { "delivered" } else { "pending" };
        let fresh = Delivery::new(state, seq, due);
        row.deliveries = sinks.into_iter().map(|sink| (sink, fresh.clone())).collect();
        self.end_if_done(index, now);
    }

    fn end_if_done(&mut self, index: usize, now: i64) {
        let row = self.row(index);
        if row.deliveries.values().all(|delivery| delivery.state != "pending") {
            (row.state, row.ended) = ("settled", Some(now));
            for letter in self.letters.iter_mut().filter(|letter| letter.retry == Some(index)) {
                letter.done = true;
            }
        }
    }

    pub(super) fn settle(&mut self, index: usize, sink: i64, dead: &[u32], filtered: u32, now: i64) {
        for position in dead {
            let number = self.row(index).records[*position as usize];
            self.letters.push(Letter { row: index, sink: Some(sink), number, retry: None, done: false });
        }
        let delivery = self.row(index).deliveries.get_mut(&sink).unwrap();
        assert_eq!(delivery.state, "pending");
        (delivery.state, delivery.not_before) = ("delivered", 0);
        (delivery.filtered, delivery.dead) = (filtered, dead.len() as u32);
        delivery.delivered = delivery.due - filtered - delivery.dead;
        self.end_if_done(index, now);
    }

    fn kill(&mut self, index: usize, sink: Option<i64>) {
        for (number, delivery) in &mut self.row(index).deliveries {
            if delivery.state == "pending" && sink.is_none_or(|sink| sink == *number) {
                (delivery.state, delivery.not_before) = ("dead", 0);
                delivery.dead = delivery.due;
            }
        }
    }

    pub(super) fn panic(&mut self, index: usize, now: i64) {
        let row = self.row(index);
        row.panics += 1;
        if row.panics < PANICS || row.state != "spooled" {
            return;
        }
        (row.state, row.ended) = ("quarantined", Some(now));
        let row = row.clone();
        self.kill(index, None);
        let mut was_retry = false;
        for letter in self.letters.iter_mut().filter(|letter| letter.retry == Some(index) && !letter.done) {
            (letter.retry, was_retry) = (None, true);
        }
        if !was_retry {
            let kept = row.records.iter().enumerate().filter(|(at, _)| !row.dropped.contains(&(*at as u32)));
            self.letters.extend(kept.map(|(_, number)| Letter {
                row: index,
                sink: None,
                number: *number,
                retry: None,
                done: false,
            }));
        }
    }

    /// Retries every letter that was not; gives which are refused because their sink is gone.
    pub(super) fn retry(&mut self) -> Vec<i64> {
        let mut groups: BTreeMap<(usize, Option<i64>), Vec<usize>> = BTreeMap::new();
        for (at, letter) in self.letters.iter().enumerate().filter(|(_, letter)| letter.retry.is_none()) {
            groups.entry((letter.row, letter.sink)).or_default().push(at);
        }
        let mut refused = Vec::new();
        for ((index, sink), letters) in groups {
            let configured = [1, self.b];
            let targets: Vec<i64> = match (sink, &self.rows[index]) {
                (Some(sink), _) => vec![sink],
                (None, Some(row)) => row
                    .deliveries
                    .iter()
                    .filter(|(_, it)| it.state == "dead")
                    .map(|(sink, _)| *sink)
                    .collect(),
                (None, None) => configured.to_vec(),
            };
            let targets: Vec<_> = targets.into_iter().filter(|sink| configured.contains(sink)).collect();
            if targets.is_empty() {
                refused.extend(letters.iter().map(|at| *at as i64 + 1));
                continue;
            }
            let (tenant, name, expires) = self.origins[index].clone();
            let seq = self.take_seq(tenant);
            let records: Vec<_> = letters.iter().map(|at| self.letters[*at].number).collect();
            let made = self.rows.len();
            for at in letters {
                self.letters[at].retry = Some(made);
            }
            let row = Row::again(tenant, name, expires, seq, records, &targets);
            self.push(Row { origin: Some(index), ..row });
        }
        refused
    }

    pub(super) fn begin_restore(&mut self, sink: i64, anew: bool) {
        if anew || !self.open_restores.contains_key(&sink) {
            self.open_restores.insert(sink, self.restores.len());
            self.restores.push((sink, 0, 0));
        }
    }

    /// Puts records back for one sink, past the duplicate check.
    pub(super) fn restore(&mut self, at: usize, tenant: u8, records: Vec<u64>, now: i64) {
        let (sink, lines, restored) = &mut self.restores[at];
        *lines += records.len() as u64 + 1;
        *restored += records.len() as u64;
        let sink = *sink;
        if records.is_empty() {
            return;
        }
        let seq = self.take_seq(tenant);
        let row = Row::again(tenant, "object".into(), now, seq, records, &[sink]);
        self.push(Row { restored: true, ..row });
    }

    pub(super) fn forget_b(&mut self, now: i64) {
        let b = self.b;
        for index in 0..self.rows.len() {
            let pending = self.rows[index]
                .as_ref()
                .is_some_and(|row| row.deliveries.get(&b).is_some_and(|it| it.state == "pending"));
            if pending {
                self.kill(index, Some(b));
                self.end_if_done(index, now);
            }
        }
        self.b = b.max(2) + 1;
        let b = self.b;
        for row in self.rows.iter_mut().flatten().filter(|row| row.state == "spooled" && !row.retry) {
            let due = (row.records.len() - row.dropped.len()) as u32;
            let seq = row.seq.unwrap();
            let fresh = Delivery::new("pending", seq, due);
            row.deliveries.insert(b, fresh);
        }
    }

    pub(super) fn maintain(&mut self, now: i64) {
        let overdue = self.rows.iter().enumerate().filter_map(|(index, row)| {
            let row =
                row.as_ref().filter(|row| row.state == "listed" && row.expires < now - 25 * (DAY / 24))?;
            Some((row.expires, index))
        });
        for (_, index) in overdue.collect::<BTreeSet<_>>() {
            self.gap(index, now);
        }
        let cut = now - 2 * DAY;
        for (index, place) in self.rows.iter_mut().enumerate() {
            let Some(row) = place else { continue };
            let over = row.ended.is_some_and(|ended| ended < cut) && row.expires < cut;
            let of_it = |of: usize| of == index || Some(of) == row.origin;
            let unsent = || self.letters.iter().any(|letter| of_it(letter.row) && !letter.done);
            // Nobody acknowledges anything here.
            if over && (row.state == "settled" || (row.retry && (row.state != "quarantined" || !unsent()))) {
                self.folded_through = self.folded_through.max(row.expires + 1);
                *place = None;
            }
        }
        self.end_odd_waits(now);
    }

    /// Ends waits of deliveries that are longer than any.
    fn end_odd_waits(&mut self, now: i64) {
        for delivery in self.rows.iter_mut().flatten().flat_map(|row| row.deliveries.values_mut()) {
            if delivery.not_before > now + DAY / 12 {
                delivery.not_before = now;
            }
        }
    }

    pub(super) fn gap(&mut self, index: usize, now: i64) {
        let tenant = self.row(index).tenant;
        let seq = self.take_seq(tenant);
        let row = self.row(index);
        (row.state, row.seq, row.ended, row.not_before) = ("gap", Some(seq), Some(now), 0);
    }
}
