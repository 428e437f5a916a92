//! The waiting jobs and whose turn it is. Fair between users by their weights (the one that got least so far goes first),
//! strict between priorities, first in first out within a user. Jobs that the same agents could take form a class: one that no
//! agent can take now holds up no other, and is not looked at again until something has changed for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use wps_remote_protocol::{AgentId, ProcessId};

use super::job::{JobId, UserId};
use super::terms::{Count, Elsewhere, Scope, Terms};

/// What one job costs a user of weight 1.
const STRIDE: u64 = 1 << 20;
/// Users without waiting jobs whose share is remembered, beyond as many as wait.
const REMEMBERED: usize = 1_000;

/// Jobs that the same agents could take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) process: ProcessId,
    pub(super) needs: Vec<String>,
}

/// Which agents may be able to take a job of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Open {
    /// It is not known of any.
    All,
    /// All others could not when they were looked at, and nothing has changed for them since.
    Only(BTreeSet<AgentId>),
}

/// Place within a user's jobs of one class: priority, then the order of acceptance.
type Place = (Reverse<i32>, i64, JobId);

/// Priority, what the user got, order of acceptance: the least goes first.
type Rank = (Reverse<i32>, u64, i64);

#[derive(Debug)]
struct Line {
    users: BTreeMap<UserId, BTreeSet<Place>>,
    /// `None` = no agent could take one.
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Entry {
    class: Class,
    user: UserId,
    place: Place,
}

/// The waiting jobs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: BTreeMap<Class, Line>,
    /// Lines that are not closed.
    open: BTreeSet<Class>,
    entries: HashMap<JobId, Entry>,
    /// How much each user got, and how many jobs of it wait.
    passes: BTreeMap<UserId, (u64, usize)>,
    /// What the user had got that was served last.
    clock: u64,
    back: i64,
    front: i64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push_back(&mut self, process: &ProcessId, user: &UserId, terms: &Terms, id: JobId) {
        self.back += 1;
        self.push(process, user, terms, id, self.back);
    }

    /// Before all that wait: it was sent already, and came back.
    pub(super) fn push_front(&mut self, process: &ProcessId, user: &UserId, terms: &Terms, id: JobId) {
        self.front -= 1;
        self.push(process, user, terms, id, self.front);
    }

    fn push(&mut self, process: &ProcessId, user: &UserId, terms: &Terms, id: JobId, order: i64) {
        let class = Class { process: process.clone(), needs: terms.needs.clone() };
        let place = (Reverse(terms.priority), order, id);
        let entry = Entry { class: class.clone(), user: user.clone(), place };
        if self.entries.insert(id, entry).is_some() {
            return;
        }
        // Who comes back after a while has nothing saved up, and who has just been served does not go first again.
        let clock = self.clock;
        let pass = self.passes.entry(user.clone()).or_insert((clock, 0));
        if pass.1 == 0 {
            pass.0 = pass.0.max(clock);
        }
        pass.1 += 1;
        let line = self.lines.entry(class.clone()).or_insert_with(|| {
            self.open.insert(class);
            Line { users: BTreeMap::new(), open: Some(Open::All) }
        });
        line.users.entry(user.clone()).or_default().insert(place);
    }

    /// Takes a job out. Whether it was there.
    pub(super) fn remove(&mut self, id: JobId) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        if let Some(line) = self.lines.get_mut(&entry.class) {
            if let Some(places) = line.users.get_mut(&entry.user) {
                places.remove(&entry.place);
                if places.is_empty() {
                    line.users.remove(&entry.user);
                }
            }
            if line.users.is_empty() {
                self.lines.remove(&entry.class);
                self.open.remove(&entry.class);
            }
        }
        if let Some(pass) = self.passes.get_mut(&entry.user) {
            pass.1 = pass.1.saturating_sub(1);
        }
        true
    }

    /// Takes a job out because it is sent: that counts for its user's share.
    pub(super) fn serve(&mut self, id: JobId, weight: u32) {
        let Some(user) = self.entries.get(&id).map(|entry| entry.user.clone()) else { return };
        self.remove(id);
        if let Some(pass) = self.passes.get_mut(&user) {
            self.clock = self.clock.max(pass.0);
            pass.0 += STRIDE / u64::from(weight.max(1));
        }
        let waiting = self.entries.len();
        if self.passes.len() > 2 * waiting + REMEMBERED {
            let clock = self.clock;
            self.passes.retain(|_, (pass, jobs)| *jobs > 0 || *pass > clock);
        }
    }

    /// Whose turn it is, among the classes that some agent may be able to take: the highest priority, then the user that got
    /// least, then its oldest job. Only jobs that `may` start.
    pub(super) fn next(&self, may: impl Fn(JobId) -> bool) -> Option<(JobId, Class)> {
        let mut best: Option<(Rank, JobId, &Class)> = None;
        for class in &self.open {
            let Some(line) = self.lines.get(class) else { continue };
            for (user, places) in &line.users {
                let Some((priority, order, id)) = places.first().copied() else { continue };
                let pass = self.passes.get(user).map_or(0, |pass| pass.0);
                let rank = (priority, pass, order);
                if best.as_ref().is_none_or(|(least, ..)| rank < *least) && may(id) {
                    best = Some((rank, id, class));
                }
            }
        }
        best.map(|(_, id, class)| (id, class.clone()))
    }

    /// Which agents to look at for a class.
    pub(super) fn candidates(&self, class: &Class) -> Option<&Open> {
        self.lines.get(class)?.open.as_ref()
    }

    /// No agent can take a job of this class now.
    pub(super) fn close(&mut self, class: &Class) {
        if let Some(line) = self.lines.get_mut(class) {
            line.open = None;
        }
        self.open.remove(class);
    }

    /// An agent that offers a process may be able to take more than before; `fits` says so for each class.
    pub(super) fn reopen(&mut self, process: &ProcessId, agent: &AgentId, fits: impl Fn(&Class) -> bool) {
        let from = Class { process: process.clone(), needs: Vec::new() };
        let classes = self.lines.range_mut(from..).take_while(|(class, _)| class.process == *process);
        for (class, line) in classes {
            if matches!(line.open, Some(Open::All)) || !fits(class) {
                continue;
            }
            match &mut line.open {
                Some(Open::Only(agents)) => {
                    agents.insert(agent.clone());
                }
                open => {
                    *open = Some(Open::Only(BTreeSet::from([agent.clone()])));
                    self.open.insert(class.clone());
                }
            }
        }
    }

    /// Jobs of the same user and class that come first, and all others that wait.
    pub(super) fn before(&self, id: JobId) -> Option<(usize, usize)> {
        let entry = self.entries.get(&id)?;
        let own = self.lines.get(&entry.class)?.users.get(&entry.user)?.range(..entry.place).count();
        let of_user = self.passes.get(&entry.user).map_or(1, |pass| pass.1);
        Some((own, self.entries.len().saturating_sub(of_user)))
    }
}

/// How many jobs of each scope run and wait, here and at other orchestrators.
#[derive(Debug, Default)]
pub(super) struct Counts {
    here: HashMap<Scope, Count>,
    elsewhere: HashMap<Scope, Elsewhere>,
}

impl Counts {
    fn scopes<'a>(user: &UserId, terms: &'a Terms) -> BTreeSet<std::borrow::Cow<'a, Scope>> {
        use std::borrow::Cow;
        let bounds = terms.running.iter().chain(&terms.queued).map(|bound| Cow::Borrowed(&bound.scope));
        bounds.chain([Cow::Owned(Scope::User(user.clone()))]).collect()
    }

    fn change(&mut self, user: &UserId, terms: &Terms, change: impl Fn(&mut Count)) {
        for scope in Self::scopes(user, terms) {
            if let Some(count) = self.here.get_mut(scope.as_ref()) {
                change(count);
                if *count == Count::default() {
                    self.here.remove(scope.as_ref());
                }
            } else {
                let mut count = Count::default();
                change(&mut count);
                self.here.insert(scope.into_owned(), count);
            }
        }
    }

    pub(super) fn queued(&mut self, user: &UserId, terms: &Terms) {
        self.change(user, terms, |count| count.queued += 1);
    }

    pub(super) fn unqueued(&mut self, user: &UserId, terms: &Terms) {
        self.change(user, terms, |count| count.queued = count.queued.saturating_sub(1));
    }

    pub(super) fn begun(&mut self, user: &UserId, terms: &Terms) {
        self.change(user, terms, |count| count.running += 1);
    }

    pub(super) fn ended(&mut self, user: &UserId, terms: &Terms) {
        self.change(user, terms, |count| count.running = count.running.saturating_sub(1));
    }

    pub(super) fn set_elsewhere(&mut self, elsewhere: HashMap<Scope, Elsewhere>) -> bool {
        let changed = self.elsewhere != elsewhere;
        self.elsewhere = elsewhere;
        changed
    }

    pub(super) fn forget_here(&mut self) {
        self.here.clear();
    }

    /// How many there are in all.
    pub(super) fn total(&self, scope: &Scope) -> Count {
        let here = self.here.get(scope).copied().unwrap_or_default();
        let there = self.elsewhere.get(scope).map(|there| there.count).unwrap_or_default();
        Count {
            running: here.running.saturating_add(there.running),
            queued: here.queued.saturating_add(there.queued),
        }
    }

    /// Whether one more may run: not more than allowed in all, and, where others wait for the same, not more than our part.
    pub(super) fn may_run(&self, scope: &Scope, max: u32) -> bool {
        let here = self.here.get(scope).map_or(0, |count| count.running);
        let Some(there) = self.elsewhere.get(scope) else { return here < max };
        here.saturating_add(there.count.running) < max && here < max.div_ceil(there.waiting_at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> JobId {
        JobId::new(uuid::Uuid::from_u128(n))
    }

    fn user(name: &str) -> UserId {
        UserId(name.to_owned())
    }

    /// Serves all that wait and says whose jobs they were.
    fn order(queue: &mut Queue, weights: &[(u128, u32)]) -> Vec<u128> {
        let mut served = Vec::new();
        while let Some((next, _)) = queue.next(|_| true) {
            let n = next.to_string();
            let n = u128::from_str_radix(n.rsplit('-').next().unwrap(), 16).unwrap();
            let weight = weights.iter().find(|(first, _)| n / 100 == *first).map_or(1, |(_, weight)| *weight);
            queue.serve(next, weight);
            served.push(n);
        }
        served
    }

    fn process() -> ProcessId {
        "a:b".parse().unwrap()
    }

    #[test]
    fn users_take_turns_by_weight_and_each_users_jobs_stay_in_order() {
        let mut queue = Queue::default();
        let terms = Terms::default();
        for n in 0..6 {
            queue.push_back(&process(), &user("ann"), &terms, id(100 + n));
        }
        for n in 0..3 {
            queue.push_back(&process(), &user("bob"), &Terms { weight: 2, ..terms.clone() }, id(200 + n));
        }
        assert_eq!(order(&mut queue, &[(2, 2)]), [100, 200, 201, 101, 202, 102, 103, 104, 105]);
    }

    #[test]
    fn who_comes_one_at_a_time_does_not_push_others_out() {
        let mut queue = Queue::default();
        let terms = Terms::default();
        for n in 0..10 {
            queue.push_back(&process(), &user("ann"), &terms, id(100 + n));
        }
        let mut served = Vec::new();
        for n in 0..10 {
            queue.push_back(&process(), &user("bob"), &terms, id(200 + n));
            for _ in 0..2 {
                let (next, _) = queue.next(|_| true).unwrap();
                served.push(if queue.entries[&next].user == user("ann") { 'a' } else { 'b' });
                queue.serve(next, 1);
            }
        }
        assert_eq!(served.iter().filter(|who| **who == 'a').count(), 10);
        let longest = served.iter().collect::<String>().split('a').map(str::len).max();
        assert!(longest.is_some_and(|run| run <= 2), "{served:?}");
    }

    #[test]
    fn priority_goes_first_and_what_comes_back_goes_before() {
        let mut queue = Queue::default();
        let terms = Terms::default();
        queue.push_back(&process(), &user("ann"), &terms, id(100));
        queue.push_back(&process(), &user("ann"), &terms, id(101));
        queue.push_back(&process(), &user("bob"), &Terms { priority: 5, ..terms.clone() }, id(200));
        queue.push_front(&process(), &user("ann"), &terms, id(102));
        assert_eq!(order(&mut queue, &[]), [200, 102, 100, 101]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_limit_is_shared_with_other_orchestrators() {
        let mut counts = Counts::default();
        let (ann, terms) = (user("ann"), Terms::default());
        let scope = Scope::User(ann.clone());
        counts.begun(&ann, &terms);
        assert!(counts.may_run(&scope, 2) && !counts.may_run(&scope, 1));
        let there = |running, queued, waiting_at| {
            HashMap::from([(scope.clone(), Elsewhere { count: Count { running, queued }, waiting_at })])
        };
        counts.set_elsewhere(there(1, 0, 0));
        assert!(!counts.may_run(&scope, 2) && counts.may_run(&scope, 3));
        // The other one has jobs waiting: two of four places are ours.
        counts.begun(&ann, &terms);
        counts.set_elsewhere(there(0, 3, 1));
        assert!(!counts.may_run(&scope, 4) && counts.may_run(&scope, 5));
        counts.ended(&ann, &terms);
        counts.ended(&ann, &terms);
        assert!(counts.here.is_empty());
    }
}
