//! The engine task: sole owner of the engine, no locks.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Instant,
};

use monitor_core::engine::{
    Declarations, Engine, Input, LossStage, Outputs, OwnerAnswer, OwnerQuestion, Snapshot,
    TranslationQuestion,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::yield_now,
};

use super::{
    cgroups, conntrack,
    handle::{EngineHandle, Query, Reply},
    now,
    owner::{Given, QUESTIONS},
    shared::Shared,
};
use crate::{
    explain::{World, explained},
    source::ebpf::Command,
};

/// Inputs that may wait: passes, events and answers of the source.
const INPUTS: usize = 256;
/// Queries that may wait.
const QUERIES: usize = 64;
/// Records that a follower may lag behind.
const FOLLOWED: usize = 8192;
/// Records after which followers get a turn.
const SLICE: usize = 1024;

/// The engine with its channels.
pub(super) struct EngineTask {
    engine: Engine,
    inputs: mpsc::Receiver<Input>,
    queries: mpsc::Receiver<Query>,
    commands: mpsc::Sender<Command>,
    questions: SyncSender<OwnerQuestion>,
    answers: mpsc::Receiver<OwnerAnswer>,
    given: Given,
    translations: SyncSender<TranslationQuestion>,
    cgroups: SyncSender<u64>,
    missed: cgroups::Missed,
    /// What other threads found out.
    found: mpsc::Receiver<Input>,
    /// Questions that the conntrack thread had no room for.
    untied: u64,
    /// Questions that the cgroup thread had no room for.
    ungrouped: u64,
    /// Questions that the owner thread had no room for.
    unasked: u64,
    shared: Shared,
    snapshot: watch::Sender<Arc<Snapshot>>,
    handle: EngineHandle,
    /// Records since followers last had a turn.
    unfollowed: usize,
}

/// Ends of the engine's channels for the other tasks.
pub(super) struct Ends {
    pub(super) task: EngineTask,
    pub(super) handle: EngineHandle,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) questions: Receiver<OwnerQuestion>,
    pub(super) answers: mpsc::Sender<OwnerAnswer>,
    pub(super) given: Given,
    pub(super) translations: Receiver<TranslationQuestion>,
    pub(super) cgroups: Receiver<u64>,
    pub(super) missed: cgroups::Missed,
    pub(super) found: mpsc::Sender<Input>,
}

/// Wraps an engine into a task.
pub(super) fn task(engine: Engine) -> Ends {
    let (input_sender, inputs) = mpsc::channel(INPUTS);
    let (query_sender, queries) = mpsc::channel(QUERIES);
    let (commands, command_receiver) = mpsc::channel(INPUTS);
    let (questions, question_receiver) = sync_channel(QUESTIONS);
    let (answer_sender, answers) = mpsc::channel(INPUTS);
    let given = Given::default();
    let (translations, translation_receiver) = sync_channel(conntrack::QUESTIONS);
    let (cgroups, cgroup_receiver) = sync_channel(cgroups::QUESTIONS);
    let missed = cgroups::Missed::default();
    let (found_sender, found) = mpsc::channel(INPUTS);
    let (records, _) = broadcast::channel(FOLLOWED);
    let (snapshot, latest) = watch::channel(Arc::new(engine.snapshot()));
    let handle = EngineHandle {
        queries: query_sender,
        records,
        snapshot: latest,
        followers_lost: Arc::default(),
        log_lost: Arc::default(),
    };
    let task = EngineTask {
        engine,
        inputs,
        queries,
        commands,
        questions,
        answers,
        given: given.clone(),
        translations,
        found,
        untied: 0,
        cgroups,
        missed: missed.clone(),
        ungrouped: 0,
        unasked: 0,
        shared: Shared::default(),
        snapshot,
        handle: handle.clone(),
        unfollowed: 0,
    };
    Ends {
        task,
        handle,
        inputs: input_sender,
        commands: command_receiver,
        questions: question_receiver,
        answers: answer_sender,
        given,
        translations: translation_receiver,
        cgroups: cgroup_receiver,
        missed,
        found: found_sender,
    }
}

// === impl EngineTask ===

impl EngineTask {
    /// Runs until the source is gone, then closes all flows.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                query = self.queries.recv() => {
                    // The handle that this task keeps holds the channel open.
                    if let Some(Query { filter, last, reply }) = query {
                        let engine = &mut self.engine;
                        // Whoever asked may have gone.
                        match reply {
                            Reply::Flows(reply) => {
                                let _ = reply.send(engine.query(&filter, last));
                            }
                            Reply::Ssh(reply) => {
                                let _ = reply.send(engine.query_ssh(&filter, last));
                            }
                            Reply::Findings(reply) => {
                                let _ = reply.send(engine.query_findings(&filter, last));
                            }
                            Reply::Explain(asked, reply) => {
                                let Declarations { chain, cluster, policies, node, own } = engine.declarations();
                                let world = World { cluster, policies, node, own };
                                let _ = reply.send(explained(&asked, chain.as_deref(), Some(world)));
                            }
                            Reply::Chain(reply) => {
                                let _ = reply.send(engine.declarations().chain);
                            }
                        }
                    }
                }
                // Gone where nobody looks for owners.
                Some(answer) = self.answers.recv() => self.step(Input::Owner(answer)).await,
                // Gone where no thread looks for anything.
                Some(input) = self.found.recv() => self.step(input).await,
                input = self.inputs.recv() => match input {
                    Some(input) => self.step(input).await,
                    None => break,
                },
            }
        }
        let outputs = self.engine.finish(now());
        self.hand_on(outputs).await;
        self.publish();
    }

    async fn step(&mut self, input: Input) {
        let is_tick = matches!(input, Input::Tick);
        if is_tick {
            for (stage, total) in [
                (LossStage::Follower, self.handle.followers_lost()),
                (LossStage::EventLog, self.handle.log_lost()),
                (LossStage::Owner, self.unasked),
                (LossStage::Translation, self.untied),
                (LossStage::Cgroup, self.ungrouped + self.missed.count()),
                (LossStage::ProcessScan, self.given.up()),
            ] {
                let outputs = self.engine.step(Input::EventsLost { stage, total }, now());
                self.hand_on(outputs).await;
            }
            let shared = self.engine.shared_addresses();
            self.shared.look(&shared, Instant::now());
        }
        // Whether an interface is covered, and a cluster known, is told at once, the rest once a second.
        let is_news = is_tick
            || matches!(
                input,
                Input::Interface(_) | Input::InterfaceGone { .. } | Input::Kubernetes(_)
            );
        let wanted = self.handle.records.receiver_count() > 0;
        self.engine.set_records(wanted);
        let outputs = self.engine.step(input, now());
        self.hand_on(outputs).await;
        if is_news {
            self.publish();
        }
    }

    async fn hand_on(
        &mut self,
        Outputs {
            records,
            expire,
            owners,
            translations,
            cgroups,
        }: Outputs,
    ) {
        for record in records {
            // Nobody may be following.
            let _ = self.handle.records.send(Arc::new(record));
            // One pass may decide more flows than a follower may lag behind, in many parts of which
            // the next is there when one is done.
            self.unfollowed += 1;
            if self.unfollowed >= SLICE {
                self.unfollowed = 0;
                yield_now().await;
            }
        }
        // A source that is busy is asked again some seconds later.
        if !expire.is_empty() && self.commands.try_send(Command::Expire(expire)).is_err() {
            tracing::debug!("the source is busy, expired flows have to wait");
        }
        for question in owners {
            self.unasked += u64::from(self.questions.try_send(question).is_err());
        }
        for question in translations {
            self.untied += u64::from(self.translations.try_send(question).is_err());
        }
        for question in cgroups {
            self.ungrouped += u64::from(self.cgroups.try_send(question).is_err());
        }
    }

    fn publish(&self) {
        self.snapshot.send_replace(Arc::new(self.engine.snapshot()));
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::{FlowKey4, FlowValue, scope};
    use monitor_core::{
        account::Interface,
        engine::Config,
        event::{Point, Protocol, Record, State},
        flow::FlowKey,
    };
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};

    use super::*;

    /// Flows in one input, as a pass sends them.
    const PART: u32 = 512;
    /// Parts of a pass: more flows than a follower may lag behind.
    const PARTS: u32 = 3 * 8192 / PART;

    #[tokio::test]
    async fn followers_have_turns_however_a_pass_is_cut_into_parts() {
        let engine = Engine::new(Config::default()).expect("no ranges");
        let Ends {
            task,
            handle,
            inputs,
            ..
        } = task(engine);
        let mut follower = handle.follow();
        drop(handle);
        let interface = Interface {
            id: 1,
            ifindex: 2,
            name: "eth0".into(),
            point: Point::Uplink,
            attach: "tcx".into(),
            covered: true,
            reason: None,
            attached_ns: Some(0),
        };
        let flow = |number: u32| {
            let key = FlowKey4 {
                local: 0x0ae0_0004,
                remote: number,
                local_port: 40_000,
                remote_port: 443,
                scope: scope(1, Protocol::TCP.0),
            };
            let value = FlowValue {
                packets: [1, 1],
                bytes: [60, 60],
                ..FlowValue::default()
            };
            (FlowKey::from(key), value)
        };
        let first = 0x0b00_0000;
        inputs
            .try_send(Input::Interface(interface))
            .expect("room for a pass");
        for part in 0..PARTS {
            let numbers = first + part * PART..first + (part + 1) * PART;
            inputs
                .try_send(Input::Removed(numbers.map(flow).collect()))
                .expect("room for a pass");
        }
        drop(inputs);
        let engine = tokio::spawn(task.run());
        // In the order of the pass, and each of them.
        let mut expected = first;
        let mut is_told = |record: &Record| {
            if let Record::Flow(flow) = record
                && flow.state == State::Closed
            {
                let remote = std::net::Ipv4Addr::from_bits(expected);
                let ends = [flow.source.ip, flow.destination.ip];
                assert!(ends.contains(&remote.into()), "{remote}: {ends:?}");
                expected += 1;
            }
        };
        // As the event log and the API do.
        loop {
            match follower.recv().await {
                Ok(record) => is_told(&record),
                Err(RecvError::Lagged(lost)) => panic!("{lost} records were lost"),
                Err(RecvError::Closed) => break,
            }
            loop {
                match follower.try_recv() {
                    Ok(record) => is_told(&record),
                    Err(TryRecvError::Lagged(lost)) => panic!("{lost} records were lost"),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        assert_eq!(expected - first, PARTS * PART);
        engine.await.expect("no panic");
    }
}
