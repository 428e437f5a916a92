//! Whose turn it is, with real programs and callers: what a role and a process may have running and waiting, and in which order
//! jobs of different weight and priority go.

use e2e::Site;
use e2e::agent::Agent;
use e2e::caller::{Caller, NAMED};
use e2e::client::{Execute, Status};
use e2e::fixtures::{WAITING, descriptor};

fn agent<'a>(site: &'a Site, places: usize) -> Agent<'a> {
    site.agent("a")
        .config(&format!("max_parallel_jobs = {places}"))
        .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
        .file("rare.ini", &descriptor("Rare", "wait.sh", ""))
        .file("wait.sh", WAITING)
        .start()
}

#[test]
fn a_role_and_a_process_have_bounds_of_their_own_over_all_users() {
    e2e::run("bounds", |site| {
        let limits = "[role few]\nmax_running = 1\nmax_queued = 1\n\
            [process test:Rare]\nmax_running = 2\nmax_queued = 2\nmax_running_per_user = 1\nmax_queued_per_user = 1\n";
        let orchestrator = site.orchestrator().config(NAMED).config(limits).start();
        let agent = agent(site, 10);
        orchestrator.wait_for(&["test:Wait", "test:Rare"]);
        let caller = |name, role| Caller::new(&orchestrator, name, role);

        // Two users with one role share what the role has.
        let (mut ann, mut bob, mut cem) = (caller("ann", "few"), caller("bob", "few"), caller("cem", "few"));
        let mut jobs = vec![(0, ann.submit("test:Wait"))];
        ann.wait_for(&jobs[0].1, "ProcessStarted");
        jobs.push((1, bob.submit("test:Wait")));
        bob.wait_for(
            &jobs[1].1,
            "waiting: all users with the role `few` together have 1 job(s) running, and `[role few] max_running` allows 1",
        );
        let (code, fault) = cem.refused(&Execute::new("test:Wait").stored());
        assert_eq!((code, fault.code.as_str()), (429, "ServerBusy"));
        let told = "all users with the role `few` together have 1 job(s) waiting, and `[role few] max_queued` allows 1";
        assert!(fault.text.contains(told), "{}", fault.text);

        // A process has room for two, and for one of each user.
        let (mut dan, mut eve) = (caller("dan", "user"), caller("eve", "user"));
        let (mut fay, mut gus) = (caller("fay", "user"), caller("gus", "user"));
        jobs.push((2, dan.submit("test:Rare")));
        dan.wait_for(&jobs[2].1, "ProcessStarted");
        jobs.push((2, dan.submit("test:Rare")));
        dan.wait_for(
            &jobs[3].1,
            "`dan` has, of the process `test:Rare`, 1 job(s) running, and `[process test:Rare] max_running_per_user` allows 1",
        );
        let (_, fault) = dan.refused(&Execute::new("test:Rare").stored());
        assert!(fault.text.contains("`[process test:Rare] max_queued_per_user` allows 1"), "{}", fault.text);
        jobs.push((3, eve.submit("test:Rare")));
        eve.wait_for(&jobs[4].1, "ProcessStarted");
        jobs.push((4, fay.submit("test:Rare")));
        fay.wait_for(
            &jobs[5].1,
            "the process `test:Rare` has 2 job(s) running, and `[process test:Rare] max_running` allows 2",
        );
        let (code, fault) = gus.refused(&Execute::new("test:Rare").stored());
        assert_eq!((code, fault.code.as_str()), (429, "ServerBusy"));
        let told =
            "the process `test:Rare` has 2 job(s) waiting, and `[process test:Rare] max_queued` allows 2";
        assert!(fault.text.contains(told), "{}", fault.text);
        // Of another process he may have as many as anybody.
        jobs.push((5, gus.submit("test:Wait")));
        gus.wait_for(&jobs[6].1, "ProcessStarted");

        agent.write("release", "");
        let mut callers = [ann, bob, dan, eve, fay, gus];
        for (owner, job) in &jobs {
            assert_eq!(callers[*owner].wait(job), Status::Succeeded);
        }
    });
}

#[test]
fn priority_goes_first_and_weight_says_how_often() {
    e2e::run("turns", |site| {
        let limits = "[limits]\nmax_queued_per_user = 50\nmax_running_per_user = 0\n\
            [role heavy]\nweight = 3\n[user eve]\npriority = 5\n";
        let orchestrator = site.orchestrator().config(NAMED).config(limits).start();
        let agent = agent(site, 1);
        orchestrator.wait_for(&["test:Wait"]);
        let mut opener = Caller::new(&orchestrator, "opener", "user");
        let first = opener.submit("test:Wait");
        opener.wait_for(&first, "ProcessStarted");

        let mut callers = [("lia", "user"), ("hal", "heavy"), ("eve", "user")]
            .map(|(name, role)| Caller::new(&orchestrator, name, role));
        let mut jobs = Vec::new();
        for (owner, count) in [(0, 8), (1, 8), (2, 2)] {
            jobs.extend((0..count).map(|_| (owner, callers[owner].submit("test:Wait"))));
        }
        agent.write("release", "");
        // One place: they run one after the other.
        let mut order = Vec::new();
        for (owner, job) in &jobs {
            let caller = &mut callers[*owner];
            assert_eq!(caller.wait(job), Status::Succeeded);
            let entry: serde_json::Value =
                serde_json::from_slice(&caller.send("GET", &format!("/jobs/{job}"), b"").body).unwrap();
            order.push((entry["started"].as_str().unwrap().to_owned(), *owner, job.clone()));
        }
        order.sort();
        let owners: Vec<usize> = order.iter().map(|(_, owner, _)| *owner).collect();
        assert_eq!(owners[..2], [2, 2], "the higher priority goes before all others: {owners:?}");
        let turns = |among: &[usize]| among.iter().filter(|owner| **owner == 1).count();
        assert_eq!((turns(&owners[2..6]), turns(&owners[6..10])), (3, 3), "three of four turns: {owners:?}");
        for owner in 0..3 {
            let ran: Vec<&String> =
                order.iter().filter(|(_, of, _)| *of == owner).map(|(.., job)| job).collect();
            let sent: Vec<&String> = jobs.iter().filter(|(of, _)| *of == owner).map(|(_, job)| job).collect();
            assert_eq!(ran, sent, "first in, first out");
        }
    });
}
