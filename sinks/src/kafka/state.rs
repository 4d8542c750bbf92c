//! What the sink keeps in the ledger when it uses transactions, and what of every work is there already.
//!
//! The state is JSON, and a form of what the delivery loop keeps for sinks without a state of their own (`partial.rs`),
//! so that transactions can be turned on and off:
//!
//! ```json
//! {"version":1,"partial":[{"work":17,"body":"0123456789abcdef","delivered":[[0,340]],"resent":0,"seq":812}],
//!  "kafka":{"number":57,"adopt":false}}
//! ```
//!
//! | member | meaning |
//! |---|---|
//! | `partial` | What was committed of works that are not settled: of which body, and how many records of earlier bodies |
//! | `kafka.number` | Grows with every state, so that progress in the topic is known to be older, newer or of this state |
//! | `kafka.adopt` | The operator has said that this ledger goes on, whatever the topic says |

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::TenantId;
use serde::{Deserialize, Serialize};

use super::{
    producer::Committed,
    progress::{Progress, Sent},
};
use crate::{
    delivery_ledger::{BodyId, SinkIdentity, Work, WorkId},
    positions::Positions,
    sink::Unfinished,
    versioned::{self, Unreadable},
};

const VERSION: u32 = 1;

/// The state as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    /// `None`: the sink has not used transactions since there is a state.
    pub(super) number: Option<u64>,
    /// What was committed of works that are not settled.
    pub(super) due: BTreeMap<WorkId, Due>,
    /// Whether another ledger's progress is to be overruled.
    pub(super) adopt: bool,
}

/// What was committed of a work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Due {
    pub(super) seq: u64,
    /// Of which body.
    pub(super) body: Option<BodyId>,
    pub(super) positions: Positions,
    /// How many records of bodies that it had before were committed.
    pub(super) resent: u32,
}

/// What of a work need not be sent again.
#[derive(Debug, Clone, Default)]
struct There {
    body: Option<BodyId>,
    positions: BTreeSet<u32>,
}

impl Due {
    /// Takes note of what was committed later. Positions of another body take the place of those that are known.
    fn join(&mut self, seq: u64, body: Option<BodyId>, positions: &Positions) {
        if BodyId::differ(self.body, body) {
            let before = std::mem::take(&mut self.positions);
            self.resent = self.resent.saturating_add(u32::try_from(before.len()).unwrap_or(u32::MAX));
        }
        (self.seq, self.body) = (seq, body.or(self.body));
        let known: BTreeSet<u32> = self.positions.iter().collect();
        self.positions.extend(positions.iter().filter(|position| !known.contains(position)));
    }
}

impl There {
    fn join(&mut self, body: Option<BodyId>, positions: impl IntoIterator<Item = u32>) {
        if BodyId::differ(self.body, body) {
            self.positions.clear();
        }
        self.body = body.or(self.body);
        self.positions.extend(positions);
    }

    fn has(&self, body: Option<BodyId>, position: u32) -> bool {
        !BodyId::differ(self.body, body) && self.positions.contains(&position)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    partial: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kafka: Option<Own>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    work: WorkId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<BodyId>,
    delivered: Positions,
    resent: u32,
    #[serde(default)]
    seq: u64,
}

#[derive(Serialize, Deserialize)]
struct Own {
    number: Option<u64>,
    adopt: bool,
}

impl State {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let stored: Stored = versioned::decode(bytes, VERSION)?;
        let due = stored.partial.into_iter().map(|Entry { work, body, delivered, resent, seq }| {
            (work, Due { seq, body, positions: delivered, resent })
        });
        let own = stored.kafka.unwrap_or(Own { number: None, adopt: false });
        Ok(Self { number: own.number, due: due.collect(), adopt: own.adopt })
    }

    /// The state behind all progress of this ledger, when somebody else's is overruled, and its number. It has what was
    /// committed since this one.
    pub(super) fn adopted(
        self,
        progress: &BTreeMap<TenantId, Progress>,
        identity: &SinkIdentity,
    ) -> (Self, u64) {
        let own = progress.iter().filter(|(_, of)| of.ledger == identity.ledger);
        let own: BTreeMap<_, _> = own.map(|(tenant, of)| (*tenant, of.clone())).collect();
        let newest = own.values().map(|of| of.after).max().unwrap_or(0);
        let mut plan = Plan::new(self, &own, identity);
        plan.number = plan.number.max(newest);
        let state = plan.next_state(&[]);
        (state, plan.number)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let partial = self
            .due
            .iter()
            .map(|(&work, Due { seq, body, positions, resent })| Entry {
                work,
                body: *body,
                delivered: positions.clone(),
                resent: *resent,
                seq: *seq,
            })
            .collect();
        let kafka = Some(Own { number: self.number, adopt: self.adopt });
        let stored = Stored { version: VERSION, partial, kafka };
        serde_json::to_vec(&stored).expect("numbers in lists are always JSON")
    }
}

/// The state by which a sink overrules another ledger's progress when it is opened next: what `mailtrail sinks adopt`
/// keeps in the ledger.
///
/// # Errors
///
/// When the present state is none of a `kafka` sink.
pub fn adopt(state: Option<&[u8]>) -> Result<Vec<u8>, Unreadable> {
    let state = state.map(State::decode).transpose()?.unwrap_or_default();
    Ok(State { adopt: true, ..state }.encode())
}

/// What the topic's progress is to a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is of this ledger, and everything fits.
    Ours,
    /// Another ledger's id is there.
    Foreign { ledger: String },
    /// It is newer than what this ledger knows.
    Ahead,
}

impl Standing {
    /// How one tenant's progress stands to a ledger and its state.
    fn of(progress: &Progress, identity: Option<&SinkIdentity>, state: Option<&State>) -> Self {
        let Some(identity) = identity.filter(|identity| identity.ledger == progress.ledger) else {
            return Self::Foreign { ledger: progress.ledger.clone() };
        };
        let ahead = match progress.incarnation.cmp(&identity.incarnation) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => match state {
                // A state is committed before the first transaction begins.
                None => true,
                Some(State { number: Some(number), .. }) => progress.after > *number,
                Some(State { number: None, .. }) => false,
            },
        };
        if ahead { Self::Ahead } else { Self::Ours }
    }
}

/// How the progress of all tenants stands to a ledger and its state. Without an identity there is no ledger yet.
pub(super) fn standing(
    progress: &BTreeMap<TenantId, Progress>,
    identity: Option<&SinkIdentity>,
    state: Option<&State>,
) -> Standing {
    let mut all = Standing::Ours;
    for of in progress.values() {
        match Standing::of(of, identity, state) {
            foreign @ Standing::Foreign { .. } => return foreign,
            Standing::Ahead => all = Standing::Ahead,
            Standing::Ours => {}
        }
    }
    all
}

/// The tenants whose progress is not this ledger's, or does not fit its state.
pub(super) fn not_ours(
    progress: &BTreeMap<TenantId, Progress>,
    identity: &SinkIdentity,
    state: &State,
) -> Vec<TenantId> {
    let others =
        progress.iter().filter(|(_, of)| Standing::of(of, Some(identity), Some(state)) != Standing::Ours);
    others.map(|(tenant, _)| *tenant).collect()
}

/// What of every work is there already, and what has to be told about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) number: u64,
    /// What the ledger's state covers.
    due: BTreeMap<WorkId, Due>,
    /// What was committed after that, by tenant.
    since: BTreeMap<TenantId, BTreeMap<WorkId, Due>>,
    /// Records that are not to be sent again.
    there: HashMap<WorkId, There>,
}

impl Plan {
    /// What the ledger's state and the topic's progress come to. The progress has to be this ledger's.
    pub(super) fn new(
        state: State,
        progress: &BTreeMap<TenantId, Progress>,
        identity: &SinkIdentity,
    ) -> Self {
        let ours = || progress.values().filter(|of| of.incarnation == identity.incarnation);
        let newest = ours().map(|of| of.after).max().unwrap_or(0);
        let mut plan = Self {
            // Without a number of its own the state was kept after the last transaction.
            number: state.number.unwrap_or(newest + 1),
            due: state.due,
            ..Self::default()
        };
        for (work, due) in &plan.due {
            plan.there.entry(*work).or_default().join(due.body, due.positions.iter());
        }
        plan.learn(progress, identity);
        plan
    }

    /// Takes note of what was committed since the state, as the topic has it.
    pub(super) fn learn(&mut self, progress: &BTreeMap<TenantId, Progress>, identity: &SinkIdentity) {
        for (tenant, of) in progress {
            if of.incarnation == identity.incarnation && of.after == self.number {
                for Sent { work, seq, body, positions } in &of.sent {
                    self.there.entry(*work).or_default().join(*body, positions.iter());
                    let (work, seq, body, positions) = (*work, *seq, *body, positions.clone());
                    self.committed(&Committed { tenant: *tenant, work, seq, body, positions });
                }
            }
        }
    }

    /// These records of a work were committed.
    pub(super) fn committed(&mut self, what: &Committed) {
        let due = self.since.entry(what.tenant).or_default().entry(what.work).or_default();
        due.join(what.seq, what.body, &what.positions);
    }

    /// What is to be committed in the ledger before the next batch: works that are settled need not be remembered.
    pub(super) fn next_state(&mut self, finished: &[WorkId]) -> State {
        for (work, since) in std::mem::take(&mut self.since).into_values().flatten() {
            self.due.entry(work).or_default().join(since.seq, since.body, &since.positions);
        }
        for work in finished {
            self.due.remove(work);
            self.there.remove(work);
        }
        self.number += 1;
        State { number: Some(self.number), due: self.due.clone(), adopt: false }
    }

    /// What was committed of a tenant since the state.
    pub(super) fn since(&self, tenant: TenantId) -> Vec<Sent> {
        let works = self.since.get(&tenant).into_iter().flatten();
        works
            .map(|(work, due)| {
                let (seq, body, positions) = (due.seq, due.body, due.positions.clone());
                Sent { work: *work, seq, body, positions }
            })
            .collect()
    }

    /// Whether the record is there already.
    pub(super) fn is_there(&self, work: &Work, position: u32) -> bool {
        self.there.get(&work.id).is_some_and(|there| there.has(work.body, position))
    }

    /// The record is there, though a receipt does not say so yet.
    pub(super) fn arrived(&mut self, work: WorkId, body: Option<BodyId>, position: u32) {
        self.there.entry(work).or_default().join(body, [position]);
    }

    /// A receipt says that the record is there: it does not come again.
    pub(super) fn received(&mut self, work: WorkId, body: Option<BodyId>, position: u32) {
        if let Some(there) = self.there.get_mut(&work).filter(|there| !BodyId::differ(there.body, body)) {
            there.positions.remove(&position);
            if there.positions.is_empty() {
                self.there.remove(&work);
            }
        }
    }

    /// Works that were begun and not settled, in the order of their Seq.
    pub(super) fn unfinished(&self) -> Vec<Unfinished> {
        let mut all = self.due.clone();
        for (work, since) in self.since.values().flatten() {
            all.entry(*work).or_default().join(since.seq, since.body, &since.positions);
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable_by_key(|(work, due)| (due.seq, *work));
        all.into_iter()
            .map(|(work, Due { body, positions, resent, .. })| {
                // In one pass over the body.
                let sent: BTreeSet<u32> = positions.iter().collect();
                Unfinished { work, body, sent: sent.into_iter().collect(), resent }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        partial::{Partial, Partials},
        test_ledger::work,
    };

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    fn identity() -> SinkIdentity {
        SinkIdentity { ledger: "mine".to_owned(), incarnation: 2 }
    }

    fn progress(after: u64, sent: &[(i64, u64, &[u32])]) -> BTreeMap<TenantId, Progress> {
        let mut progress = Progress::new(&identity(), after);
        progress.sent = sent
            .iter()
            .map(|(work, seq, positions)| Sent {
                work: WorkId(*work),
                seq: *seq,
                body: None,
                positions: positions.iter().copied().collect(),
            })
            .collect();
        BTreeMap::from([(tenant(1), progress)])
    }

    fn unfinished(plan: &Plan) -> Vec<(i64, Vec<u32>)> {
        plan.unfinished().into_iter().map(|one| (one.work.0, one.sent.iter().collect())).collect()
    }

    #[test]
    fn the_state_is_also_one_for_the_delivery_loop_and_the_other_way_round() {
        let due = Due { seq: 812, positions: (0..340).collect(), ..Due::default() };
        let state = State { number: Some(57), due: BTreeMap::from([(WorkId(17), due)]), adopt: false };
        let bytes = state.encode();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"version":1,"partial":[{"work":17,"delivered":[[0,340]],"resent":0,"seq":812}],"kafka":{"number":57,"adopt":false}}"#
        );
        assert_eq!(State::decode(&bytes).unwrap(), state);
        let mut partials = Partials::decode(Some(&bytes)).unwrap();
        assert_eq!(partials.get(&work(17, 500)).0.unwrap().delivered.len(), 340);

        let mut partials = Partials::default();
        partials.keep(WorkId(3), Partial { body: None, delivered: (0..4).collect(), resent: 1 });
        let state = State::decode(&partials.changed_state().unwrap()).unwrap();
        assert_eq!((state.number, state.due[&WorkId(3)].positions.len()), (None, 4));
        assert!(matches!(
            State::decode(br#"{"version":2,"partial":[]}"#),
            Err(Unreadable::Newer { found: 2, .. })
        ));
        assert!(State::decode(b"x").is_err());
    }

    #[test]
    fn adopting_keeps_what_is_there_and_the_next_state_ends_it() {
        let state = State { number: Some(7), due: BTreeMap::new(), adopt: false };
        let adopted = State::decode(&adopt(Some(&state.encode())).unwrap()).unwrap();
        assert_eq!((adopted.number, adopted.adopt), (Some(7), true));
        let fresh = State::decode(&adopt(None).unwrap()).unwrap();
        assert_eq!((fresh.number, fresh.adopt), (None, true));
        assert!(!Plan::new(adopted, &BTreeMap::new(), &identity()).next_state(&[]).adopt);
        assert!(adopt(Some(b"x")).is_err());
    }

    #[test]
    fn whose_progress_it_is() {
        let state = |number| State { number, ..State::default() };
        let of = |progress: &_, state: Option<&State>| standing(progress, Some(&identity()), state);
        let ours = progress(7, &[]);
        assert_eq!(of(&BTreeMap::new(), None), Standing::Ours);
        assert_eq!(of(&ours, Some(&state(Some(7)))), Standing::Ours);
        assert_eq!(of(&ours, Some(&state(Some(8)))), Standing::Ours);
        assert_eq!(of(&ours, Some(&state(None))), Standing::Ours);
        assert_eq!(of(&ours, Some(&state(Some(6)))), Standing::Ahead);
        assert_eq!(of(&ours, None), Standing::Ahead);
        let mut other = ours.clone();
        other.get_mut(&tenant(1)).unwrap().ledger = "other".to_owned();
        assert_eq!(of(&other, Some(&state(Some(9)))), Standing::Foreign { ledger: "other".to_owned() });
        let mut incarnation = ours.clone();
        incarnation.get_mut(&tenant(1)).unwrap().incarnation = 1;
        assert_eq!(of(&incarnation, None), Standing::Ours);
        incarnation.get_mut(&tenant(1)).unwrap().incarnation = 3;
        assert_eq!(of(&incarnation, Some(&state(Some(9)))), Standing::Ahead);
    }

    /// Of somebody else's progress nothing is believed, and all of this ledger's own.
    #[test]
    fn overruling_another_keeps_what_this_ledger_has_committed() {
        let state = State { number: Some(7), due: BTreeMap::new(), adopt: true };
        let mut progress = progress(7, &[(4, 9, &[0, 1])]);
        let mut other = progress[&tenant(1)].clone();
        other.ledger = "other".to_owned();
        progress.insert(tenant(2), other);
        let mut newer = Progress::new(&identity(), 12);
        newer.sent = vec![Sent { work: WorkId(5), seq: 3, body: None, positions: (0..2).collect() }];
        progress.insert(tenant(3), newer);
        assert_eq!(not_ours(&progress, &identity(), &state), [tenant(2), tenant(3)]);
        let (state, number) = state.adopted(&progress, &identity());
        assert_eq!((state.number, number, state.adopt), (Some(13), 13, false));
        let due: Vec<_> = state.due.iter().map(|(work, due)| (work.0, due.positions.len())).collect();
        assert_eq!(due, [(4, 2)]);
        // A kill before that state is durable changes nothing: the tenant's own progress is as it was.
        progress.insert(tenant(2), Progress::new(&identity(), 13));
        let again = State { number: Some(7), due: BTreeMap::new(), adopt: true };
        assert_eq!(again.adopted(&progress, &identity()).0.due, state.due);
    }

    /// A crash after the commit in the brokers and before the one in the ledger: the topic tells.
    #[test]
    fn what_was_committed_since_the_state_is_known_from_the_topic() {
        let state = State {
            number: Some(7),
            due: BTreeMap::from([(WorkId(4), Due { seq: 9, positions: (0..3).collect(), ..Due::default() })]),
            adopt: false,
        };
        let current = progress(7, &[(4, 9, &[3, 4]), (2, 10, &[0])]);
        let plan = Plan::new(state.clone(), &current, &identity());
        assert_eq!(unfinished(&plan), [(4, vec![0, 1, 2, 3, 4]), (2, vec![0])]);
        assert!(plan.is_there(&work(4, 9), 4) && !plan.is_there(&work(4, 9), 5));
        // What is older than the state is in it, or settled.
        let old = progress(6, &[(4, 9, &[1, 2]), (1, 8, &[0])]);
        let plan = Plan::new(state, &old, &identity());
        assert_eq!(unfinished(&plan), [(4, vec![0, 1, 2])]);
    }

    #[test]
    fn a_state_covers_what_was_committed_before_it_and_forgets_what_is_settled() {
        let mut plan =
            Plan::new(State { number: Some(1), ..State::default() }, &BTreeMap::new(), &identity());
        let committed = |of, work, seq, positions: std::ops::Range<u32>| Committed {
            tenant: tenant(of),
            work: WorkId(work),
            seq,
            body: None,
            positions: positions.collect(),
        };
        plan.committed(&committed(1, 1, 5, 0..3));
        plan.committed(&committed(2, 2, 1, 0..2));
        plan.committed(&committed(1, 1, 5, 2..4));
        assert_eq!(plan.since(tenant(1))[0].positions.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        let state = plan.next_state(&[WorkId(2)]);
        assert_eq!(state.number, Some(2));
        assert_eq!(state.due.keys().collect::<Vec<_>>(), [&WorkId(1)]);
        assert!(plan.since(tenant(1)).is_empty(), "the state has it");
        let state = plan.next_state(&[WorkId(1)]);
        assert!(state.due.is_empty());
    }

    #[test]
    fn what_arrived_without_a_receipt_is_known_until_there_is_one() {
        let mut plan = Plan::default();
        plan.arrived(WorkId(1), None, 3);
        assert!(plan.is_there(&work(1, 9), 3));
        plan.received(WorkId(1), None, 3);
        assert!(!plan.is_there(&work(1, 9), 3));
        assert!(plan.there.is_empty());
    }

    /// What was committed of one body says nothing about another that came in its place.
    #[test]
    fn of_another_body_nothing_is_there_and_what_was_committed_counts_as_resent() {
        let body = |byte: u8| BodyId::of_sha256(&[byte; 32]);
        let of_body = |body| Work { body, ..Work::clone(&work(4, 9)) };
        let due = Due { seq: 9, body: body(1), positions: (0..3).collect(), resent: 2 };
        let state = State { number: Some(7), due: BTreeMap::from([(WorkId(4), due)]), adopt: false };
        let state = State::decode(&state.encode()).unwrap();
        let mut plan = Plan::new(state.clone(), &BTreeMap::new(), &identity());
        assert!(plan.is_there(&of_body(body(1)), 2) && !plan.is_there(&of_body(body(2)), 2));
        assert_eq!((plan.unfinished()[0].body, plan.unfinished()[0].resent), (body(1), 2));

        // Of the other one, two are committed; and the same after a crash before the next state.
        let positions: Positions = [0, 8].into_iter().collect();
        let (tenant, work) = (tenant(1), WorkId(4));
        plan.committed(&Committed { tenant, work, seq: 12, body: body(2), positions });
        let mut topic = progress(7, &[]);
        topic.get_mut(&tenant).unwrap().sent = plan.since(tenant);
        for mut plan in [plan, Plan::new(state, &topic, &identity())] {
            let expected = Unfinished { work, body: body(2), sent: [0, 8].into_iter().collect(), resent: 5 };
            assert_eq!(plan.unfinished(), [expected]);
            let next = State::decode(&plan.next_state(&[]).encode()).unwrap();
            assert_eq!((next.due[&work].body, next.due[&work].resent), (body(2), 5));
            plan.arrived(work, body(2), 8);
            assert!(plan.is_there(&of_body(body(2)), 8) && !plan.is_there(&of_body(body(1)), 8));
            plan.received(work, body(1), 8);
            assert!(plan.is_there(&of_body(body(2)), 8), "it is another record");
        }
    }
}
