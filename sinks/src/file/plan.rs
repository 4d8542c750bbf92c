//! What comes next in the file, and what of it has to be in the ledger before. Pure: no clock, no I/O.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};

use super::{
    closed::ClosedName,
    config::FileConfig,
    disk::Identity,
    state::{Closing, Due, State},
};
use crate::{
    delivery_ledger::{BodyId, WorkId},
    positions::Positions,
    sink::{Batch, Unfinished},
};

/// Where the sink stands.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    config: FileConfig,
    /// The live file, which is another than the configuration's after its directory changed, until the next rotation.
    path: PathBuf,
    identity: Option<Identity>,
    /// Where the next batch begins. Everything before it is fsynced and proved.
    at: u64,
    opened: Option<DateTime<Utc>>,
    closed: u64,
    closing: Option<Closing>,
    /// In the order of lines.
    due: Vec<DueLines>,
    /// What an earlier run sent: it comes again, and is not to be noted twice.
    before: HashMap<WorkId, BTreeSet<u32>>,
    /// Works of an earlier run whose lines were not met in this one.
    unmet: HashSet<WorkId>,
    /// Up to where lines may stand of works that were settled by somebody else before they were met: given up to make
    /// room, or quarantined. They are ours, and whoever tails the file has seen them.
    given_up: Option<u64>,
}

/// Nobody has looked how far they go.
const UNKNOWN: u64 = u64::MAX;

/// Lines of a work that are due, or that stand in the file while the work goes on.
#[derive(Debug, Clone)]
struct DueLines {
    work: WorkId,
    /// Of which body they are.
    body: Option<BodyId>,
    /// Where they begin, once that is known.
    start: Option<u64>,
    sent: Positions,
    /// How many lines of earlier bodies were there.
    resent: u32,
    /// Whether they take the place of lines of an earlier body. The work comes in one turn then, before whatever stood
    /// behind those.
    in_place: bool,
}

impl DueLines {
    fn new(work: WorkId, body: Option<BodyId>, sent: Positions) -> Self {
        Self { work, body, start: None, sent, resent: 0, in_place: false }
    }

    fn kept(&self) -> Due {
        Due { work: self.work, body: self.body, sent: self.sent.clone(), resent: self.resent }
    }
}

/// Where a batch is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) at: u64,
    pub(super) closing: Option<Closing>,
    /// Whether lines of a body that a work had before may stand there, which are not due and ours all the same.
    pub(super) replaces: bool,
    /// Up to where whole lines stay that are not due, because they may be of works that were given up.
    pub(super) keeps_below: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Where the lines of each part of the batch begin.
    pub(super) starts: Vec<u64>,
    pub(super) end: u64,
    pub(super) identity: Identity,
    /// How far all that stands there was looked at, and where the last line ended that stays though it is not due. `None`
    /// while there is more behind the batch.
    pub(super) kept: Option<u64>,
}

/// The live file's path.
pub(super) fn live_path(config: &FileConfig) -> PathBuf {
    config.directory.join(format!("{}.ndjson", config.file_name))
}

impl Plan {
    /// Goes on from what the ledger has. `identity` is the live file's.
    pub(super) fn new(config: FileConfig, state: Option<State>, identity: Option<Identity>) -> Self {
        let path = live_path(&config);
        let Some(state) = state else {
            return Self {
                config,
                path,
                identity,
                at: 0,
                opened: None,
                closed: 0,
                closing: None,
                due: Vec::new(),
                before: HashMap::new(),
                unmet: HashSet::new(),
                given_up: None,
            };
        };
        let mut before: HashMap<WorkId, BTreeSet<u32>> = HashMap::new();
        let mut due = Vec::with_capacity(state.due.len());
        let sent = state.due.iter().filter(|due| !due.sent.is_empty());
        let unmet = sent.map(|due| due.work).collect();
        for Due { work, body, sent, resent } in state.due {
            before.entry(work).or_default().extend(sent.iter());
            due.push(DueLines { resent, ..DueLines::new(work, body, sent) });
        }
        if let Some(first) = due.first_mut() {
            first.start = Some(state.start);
        }
        Self {
            path: state.path,
            config,
            identity,
            at: state.start,
            opened: state.opened,
            closed: state.closed,
            closing: None,
            due,
            before,
            unmet,
            given_up: state.given_up,
        }
    }

    /// Files with numbers up to this one were closed before.
    pub(super) fn goes_on_behind(&mut self, number: u64) {
        self.closed = self.closed.max(number);
    }

    /// What must be delivered before anything else.
    pub(super) fn unfinished(&self) -> Vec<Unfinished> {
        let unfinished = |due: &DueLines| {
            let DueLines { work, body, sent, resent, .. } = due;
            Unfinished { work: *work, body: *body, sent: sent.clone(), resent: *resent }
        };
        self.due.iter().map(unfinished).collect()
    }

    /// Takes note of what was settled and of what comes next; returns what the ledger has to keep before.
    pub(super) fn announce(
        &mut self,
        finished: &[WorkId],
        next: Option<&Batch>,
        taken: &dyn Fn(&Path) -> bool,
        now: DateTime<Utc>,
    ) -> State {
        self.due.retain(|due| !finished.contains(&due.work));
        for work in finished {
            self.before.remove(work);
            if self.unmet.remove(work) {
                self.given_up = Some(UNKNOWN);
            }
        }
        if let Some(batch) = next {
            if self.due.is_empty() && self.wants_rotation(now) {
                self.rotate(taken, now);
            }
            self.opened.get_or_insert(now);
            for part in &batch.parts {
                let (work, body) = (part.work.id, part.work.body);
                self.begin_anew(work, body);
                let before = self.before.get(&work);
                let new = part.positions();
                let new: Positions =
                    new.filter(|position| before.is_none_or(|before| !before.contains(position))).collect();
                let last = self.due.len().saturating_sub(1);
                let mut known = self.due.iter_mut().enumerate().filter(|(_, due)| due.work == work);
                match known.find(|(at, due)| due.in_place || *at == last) {
                    _ if new.is_empty() => {}
                    Some((_, due)) => due.sent.extend(new.iter()),
                    None => self.due.push(DueLines::new(work, body, new)),
                }
            }
        }
        self.state()
    }

    /// A work that has another body now begins anew, in the place of its first lines: those that stand there are compared
    /// with what is due now, as any others that a crash has left.
    fn begin_anew(&mut self, work: WorkId, body: Option<BodyId>) {
        let is_other = |due: &DueLines| due.work == work && BodyId::differ(due.body, body);
        let Some(place) = self.due.iter().position(is_other) else { return };
        let start = self.due[place].start;
        let mut resent = 0_u32;
        self.due.retain(|due| {
            if is_other(due) {
                let lines = u32::try_from(due.sent.len()).unwrap_or(u32::MAX);
                resent = resent.saturating_add(due.resent).saturating_add(lines);
            }
            !is_other(due)
        });
        self.before.remove(&work);
        let anew = DueLines { work, body, start, sent: Positions::default(), resent, in_place: true };
        self.due.insert(place, anew);
    }

    /// Where the announced batch is to be written.
    pub(super) fn place(&self) -> Place {
        let replaces = self.due.iter().any(|due| due.resent > 0);
        let keeps_below = self.given_up.unwrap_or(0);
        Place { path: self.path.clone(), at: self.at, closing: self.closing.clone(), replaces, keeps_below }
    }

    /// The live file is gone: this batch begins a new one, where the configuration says now.
    pub(super) fn start_anew(&mut self, batch: &[(WorkId, Positions)], now: DateTime<Utc>) -> State {
        self.path = live_path(&self.config);
        self.identity = None;
        self.at = 0;
        self.opened = Some(now);
        self.given_up = None;
        // Only this batch will stand in the new file.
        self.before.clear();
        let known = std::mem::take(&mut self.due);
        for (work, sent) in batch {
            let of = || known.iter().filter(|due| due.work == *work);
            let body = of().find_map(|due| due.body);
            let is_first = self.due.iter().all(|due| due.work != *work);
            let resent = if is_first { of().map(|due| due.resent).sum() } else { 0 };
            self.due.push(DueLines { resent, ..DueLines::new(*work, body, sent.clone()) });
        }
        self.state()
    }

    /// Takes note of what was written, once that counts.
    pub(super) fn wrote(&mut self, batch: &[(WorkId, Positions)], written: &Written) {
        self.closing = None;
        self.identity = Some(written.identity);
        self.at = written.end;
        if self.given_up == Some(UNKNOWN) {
            self.given_up = written.kept.or(self.given_up);
        }
        for (work, _) in batch {
            self.unmet.remove(work);
        }
        for ((work, positions), start) in batch.iter().zip(&written.starts) {
            let first = positions.iter().next();
            let begun = |due: &&mut DueLines| due.work == *work && due.sent.iter().next() == first;
            if let Some(due) = self.due.iter_mut().find(begun) {
                due.start.get_or_insert(*start);
            }
        }
    }

    /// Decides a rotation when the file is old enough and no work is open; for a sink that is idle.
    pub(super) fn rotate_when_idle(
        &mut self,
        taken: &dyn Fn(&Path) -> bool,
        now: DateTime<Utc>,
    ) -> Option<State> {
        let is_old = self.until_rotation(now).is_some_and(|left| left.is_zero());
        if !self.due.is_empty() || self.closing.is_some() || !is_old {
            return None;
        }
        self.rotate(taken, now);
        self.closing.is_some().then(|| self.state())
    }

    /// The rotation was done, and the new live file is there.
    pub(super) fn rotated(&mut self, identity: Identity) {
        self.closing = None;
        self.identity = Some(identity);
    }

    /// How long until the live file is old enough; `None` while it is empty.
    pub(super) fn until_rotation(&self, now: DateTime<Utc>) -> Option<std::time::Duration> {
        let opened = self.opened.filter(|_| self.at > 0 && self.given_up != Some(UNKNOWN))?;
        let age = (now - opened).to_std().unwrap_or_default();
        Some(self.config.rotate_interval.saturating_sub(age))
    }

    fn wants_rotation(&self, now: DateTime<Utc>) -> bool {
        let is_due = self.path != live_path(&self.config)
            || self.at >= self.config.rotate_bytes
            || self.until_rotation(now).is_some_and(|left| left.is_zero());
        // A file is closed where it is known to end.
        is_due && self.given_up != Some(UNKNOWN)
    }

    fn rotate(&mut self, taken: &dyn Fn(&Path) -> bool, now: DateTime<Utc>) {
        let next = live_path(&self.config);
        if self.at > 0
            && let Some(identity) = self.identity
        {
            // The file keeps the directory and the name that it was begun with.
            let directory = self.path.parent().unwrap_or(&self.config.directory).to_owned();
            let base = self.path.file_stem().and_then(|stem| stem.to_str());
            let base = base.unwrap_or(self.config.file_name.as_str()).to_owned();
            let mut name = ClosedName { base, time: now, number: self.closed + 1 };
            while taken(&directory.join(name.to_string())) {
                name.number += 1;
            }
            self.closed = name.number;
            let to = directory.join(name.to_string());
            self.closing = Some(Closing { from: self.path.clone(), to, length: self.at, identity });
        }
        self.path = next;
        self.identity = None;
        self.at = 0;
        self.opened = None;
        self.given_up = None;
    }

    fn state(&mut self) -> State {
        let start = self.due.first().and_then(|due| due.start).unwrap_or(self.at);
        self.given_up = self.given_up.filter(|end| *end > start);
        State {
            start,
            synced: self.at,
            opened: self.opened,
            closed: self.closed,
            closing: self.closing.clone(),
            given_up: self.given_up,
            due: self.due.iter().map(DueLines::kept).collect(),
            ..State::new(self.path.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{sink::BatchPart, test_ledger::work, testing::piece};

    const IDENTITY: Identity = Identity { device: 1, inode: 7 };

    fn plan(state: Option<State>) -> Plan {
        let config = FileConfig {
            rotate_bytes: 1000,
            rotate_interval: Duration::from_secs(60),
            ..FileConfig::new("/logs".into())
        };
        Plan::new(config, state, Some(IDENTITY))
    }

    /// These positions of these works.
    fn batch(parts: &[(i64, &[u32])]) -> Batch {
        let part = |&(id, positions): &(i64, &[u32])| {
            let piece = piece(positions.iter().map(|position| (*position, &b"x"[..], None)));
            BatchPart { work: work(id, 100), piece, indexes: 0..positions.len(), first: true, last: false }
        };
        Batch { parts: parts.iter().map(part).collect() }
    }

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_323_045 + seconds, 0).unwrap()
    }

    fn body(byte: u8) -> Option<BodyId> {
        BodyId::of_sha256(&[byte; 32])
    }

    /// The same batch, with another body of each work.
    fn of_body(body: Option<BodyId>, mut batch: Batch) -> Batch {
        for part in &mut batch.parts {
            part.work = std::sync::Arc::new(crate::delivery_ledger::Work { body, ..(*part.work).clone() });
        }
        batch
    }

    /// Announces and writes a batch.
    fn write(plan: &mut Plan, parts: &[(i64, &[u32])], starts: &[u64], end: u64) -> State {
        let state = plan.announce(&[], Some(&batch(parts)), &|_| false, time(0));
        let parts: Vec<_> =
            parts.iter().map(|(id, sent)| (WorkId(*id), sent.iter().copied().collect())).collect();
        plan.wrote(&parts, &Written { starts: starts.to_vec(), end, identity: IDENTITY, kept: Some(0) });
        state
    }

    fn due(state: &State) -> Vec<(i64, Vec<u32>)> {
        state.due.iter().map(|due| (due.work.0, due.sent.iter().collect())).collect()
    }

    #[test]
    fn lines_stay_due_until_their_work_is_settled() {
        let mut plan = plan(None);
        let state = write(&mut plan, &[(1, &[0, 1]), (2, &[0])], &[0, 20], 30);
        assert_eq!((state.start, state.synced), (0, 0), "before anything is written");
        assert_eq!(due(&state), [(1, vec![0, 1]), (2, vec![0])]);
        // The first is settled, the second goes on.
        let state = plan.announce(&[WorkId(1)], Some(&batch(&[(2, &[1, 5])])), &|_| false, time(0));
        assert_eq!((state.start, state.synced), (20, 30));
        assert_eq!(due(&state), [(2, vec![0, 1, 5])]);
        let state = plan.announce(&[WorkId(2)], None, &|_| false, time(0));
        assert_eq!((state.start, state.synced, state.due.len()), (30, 30, 0));
    }

    #[test]
    fn what_an_earlier_run_sent_is_not_noted_twice_and_what_is_new_comes_behind() {
        let mut before = plan(None);
        let state = write(&mut before, &[(1, &[0, 2]), (2, &[0])], &[0, 20], 30);
        let mut plan = plan(Some(state));
        assert_eq!(plan.unfinished().len(), 2);
        let state = write(&mut plan, &[(1, &[0, 2]), (2, &[0]), (1, &[1])], &[0, 20, 30], 40);
        assert_eq!(due(&state), [(1, vec![0, 2]), (2, vec![0]), (1, vec![1])]);
    }

    #[test]
    fn a_work_that_has_another_body_now_takes_the_place_of_its_old_lines() {
        let mut before = plan(None);
        let first = |parts| of_body(body(1), batch(parts));
        let state = before.announce(&[], Some(&first(&[(1, &[0, 1, 2]), (2, &[0, 1])])), &|_| false, time(0));
        assert_eq!(State::decode(&state.encode()).unwrap(), state, "it is kept of which body lines are");
        let mut plan = plan(Some(state));
        let bodies: Vec<_> = plan.unfinished().iter().map(|one| (one.work.0, one.body, one.resent)).collect();
        assert_eq!(bodies, [(1, body(1), 0), (2, body(1), 0)]);

        let anew = of_body(body(2), batch(&[(1, &[0, 1])]));
        let state = plan.announce(&[], Some(&anew), &|_| false, time(0));
        assert_eq!(due(&state), [(1, vec![0, 1]), (2, vec![0, 1])], "in its place, and nothing of before");
        assert_eq!((state.start, state.due[0].body, state.due[0].resent), (0, body(2), 3));
        // The rest of it comes before what stood behind it, which is noted already.
        let rest = of_body(body(2), batch(&[(1, &[4])]));
        plan.announce(&[], Some(&rest), &|_| false, time(0));
        let state = plan.announce(&[], Some(&first(&[(2, &[0, 1])])), &|_| false, time(0));
        assert_eq!(due(&state), [(1, vec![0, 1, 4]), (2, vec![0, 1])]);
        // And once more another one.
        let mut plan = super::Plan::new(plan.config.clone(), Some(state), Some(IDENTITY));
        let state = plan.announce(&[], Some(&of_body(body(3), batch(&[(1, &[0])]))), &|_| false, time(0));
        assert_eq!((due(&state)[0].clone(), state.due[0].resent), ((1, vec![0]), 6));
    }

    #[test]
    fn a_file_is_closed_between_works_under_a_name_that_is_free() {
        let mut plan = plan(None);
        write(&mut plan, &[(1, &[0])], &[0], 2000);
        let state = plan.announce(&[], Some(&batch(&[(1, &[1])])), &|_| false, time(5));
        assert_eq!(state.closing, None, "the work goes on");
        let taken = |path: &Path| path.to_string_lossy().ends_with("-1.ndjson");
        let state = plan.announce(&[WorkId(1)], Some(&batch(&[(2, &[0])])), &taken, time(9));
        let closing = state.closing.expect("it is long enough");
        assert_eq!(closing.to, Path::new("/logs/mailtrail-20260102T030414Z-2.ndjson"));
        assert_eq!((closing.length, closing.identity), (2000, IDENTITY));
        assert_eq!((state.start, state.synced, state.closed, state.opened), (0, 0, 2, Some(time(9))));
        let again = plan.announce(&[], Some(&batch(&[(2, &[0])])), &taken, time(9));
        assert_eq!(again.closing, Some(closing), "it is decided once");
    }

    #[test]
    fn an_idle_file_is_closed_by_age_only_and_never_when_it_is_empty() {
        let mut plan = plan(None);
        assert_eq!(plan.until_rotation(time(1000)), None);
        assert_eq!(plan.rotate_when_idle(&|_| false, time(1000)), None);
        write(&mut plan, &[(1, &[0])], &[0], 2000);
        plan.announce(&[WorkId(1)], None, &|_| false, time(1));
        assert_eq!(plan.until_rotation(time(59)), Some(Duration::from_secs(1)));
        assert_eq!(plan.rotate_when_idle(&|_| false, time(59)), None);
        assert!(plan.rotate_when_idle(&|_| false, time(60)).is_some());
        assert_eq!(plan.rotate_when_idle(&|_| false, time(6000)), None);
    }
}
