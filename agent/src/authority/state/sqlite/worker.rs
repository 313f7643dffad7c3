//! A connection on a thread of its own. What waits for it is done together, in one transaction: changes
//! then share one sync to disk, which is nearly all they cost.

use std::{fs::File, io, sync::Arc, thread};

use rusqlite::{Connection, Savepoint, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{Pending, StoreError};

/// Most that waits at once: the front door lets fewer requests in than this.
const QUEUE: usize = 4096;

/// Most done in one transaction, so that nobody waits long for the others.
const BATCH: usize = 256;

/// Where work for the thread is left. The thread ends when the last clone is gone, which waits for it: a
/// process that ends must have closed the database, or it leaves its journal behind.
#[derive(Debug, Clone)]
pub(super) struct Worker(Arc<Thread>);

#[derive(Debug)]
struct Thread {
    /// Taken only when this is dropped, as is …
    jobs: Option<mpsc::Sender<Job>>,
    /// … this.
    handle: Option<thread::JoinHandle<()>>,
}

/// Does its part of a transaction (if one could be begun) and says how to answer.
type Job = Box<dyn FnOnce(Result<&mut Transaction<'_>, StoreError>) -> Reply + Send>;

/// Answers, once it is known whether the transaction was committed.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Worker {
    /// `lock` is given back when `db` has been closed.
    pub(super) fn start(
        name: &str,
        mut db: Connection,
        transactions: TransactionBehavior,
        lock: Arc<File>,
    ) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name(name.to_owned());
        let handle = thread.spawn(move || {
            while let Some(first) = queue.blocking_recv() {
                let others = std::iter::from_fn(|| queue.try_recv().ok());
                let batch = std::iter::once(first).chain(others).take(BATCH).collect();
                do_together(&mut db, transactions, batch);
            }
            drop(db);
            drop(lock);
        })?;
        Ok(Self(Arc::new(Thread {
            jobs: Some(jobs),
            handle: Some(handle),
        })))
    }

    /// Has `work` done, whole or not at all; answers when it is on disk.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<'static, T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |batch| {
            let done = batch.and_then(|batch| alone(batch, work));
            Box::new(move |committed| {
                // Who asked may have given up.
                let _ = answer.send(committed.and(done));
            })
        });
        let queued = self.0.jobs.as_ref().map(|jobs| jobs.try_send(job));
        Box::pin(async move {
            let busy = || StoreError::Failed(format!("{QUEUE} requests wait for the disk already"));
            queued.ok_or_else(busy)?.map_err(|_| busy())?;
            answered
                .await
                .map_err(|_| StoreError::Failed("the database's thread has ended".to_owned()))?
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // It ends when it has done what was left to it; a panic of its was its own.
        let _ = self.handle.take().map(thread::JoinHandle::join);
    }
}

fn do_together(db: &mut Connection, transactions: TransactionBehavior, batch: Vec<Job>) {
    let (replies, committed): (Vec<Reply>, _) = match db.transaction_with_behavior(transactions) {
        Ok(mut transaction) => {
            let replies = batch
                .into_iter()
                .map(|job| job(Ok(&mut transaction)))
                .collect();
            (replies, transaction.commit().map_err(StoreError::from))
        }
        Err(why) => {
            let why = StoreError::from(why);
            let replies = batch.into_iter().map(|job| job(Err(why.clone()))).collect();
            (replies, Ok(()))
        }
    };
    for reply in replies {
        reply(committed.clone());
    }
}

/// What fails takes back its own changes and leaves the others'.
fn alone<T>(
    batch: &mut Transaction<'_>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let part: Savepoint<'_> = batch.savepoint()?;
    let done = work(&part)?;
    part.commit()?;
    Ok(done)
}
