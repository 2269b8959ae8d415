//! Streams of requests that are answered in their order, with a bounded number of them in work.
//!
//! What always holds: a request is begun only when the one before it has begun, nothing is begun behind a request that
//! could not be, and the first error is the last answer. What was begun before is settled and answered first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

use api::ApiError;
use futures::future::{Either, ready};
use futures::stream::{BoxStream, FuturesOrdered, Stream, StreamExt as _};
use runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Begins requests one after another and settles up to `window` of them side by side; answers in their order.
///
/// What must happen in the order of the requests belongs into `begin`: it ends for one request before it is called for
/// the next. `settle` is first polled in the order of the requests too. The first error of either ends the stream.
pub fn in_order<Q, B, A, Begin, Settle>(
    requests: impl Stream<Item = Result<Q, Status>> + Send + 'static,
    window: usize,
    begin: impl Fn(Q) -> Begin + Send + 'static,
    settle: impl Fn(B) -> Settle + Send + 'static,
) -> impl Stream<Item = Result<A, Status>> + Send + 'static
where
    Q: Send + 'static,
    B: Send + 'static,
    A: Send + 'static,
    Begin: Future<Output = Result<B, Status>> + Send + 'static,
    Settle: Future<Output = Result<A, Status>> + Send + 'static,
{
    let begun = requests.then(move |request| match request {
        Ok(request) => Either::Left(begin(request)),
        Err(status) => Either::Right(ready(Err(status))),
    });
    until_first_error(settled(until_first_error(begun), window, settle))
}

/// Settles up to `window` of what was begun side by side; answers in its order.
///
/// What is settled when it is first polled, with nothing before it in work, is handed out there and then. Most completions are, and need
/// neither a place in a list nor a look for further requests before each answer.
fn settled<B, A, Settle>(
    begun: impl Stream<Item = Result<B, Status>> + Send + 'static,
    window: usize,
    settle: impl Fn(B) -> Settle + Send + 'static,
) -> impl Stream<Item = Result<A, Status>> + Send + 'static
where
    B: Send + 'static,
    A: Send + 'static,
    Settle: Future<Output = Result<A, Status>> + Send + 'static,
{
    let mut begun = Box::pin(begun.fuse());
    let mut in_work = FuturesOrdered::new();
    futures::stream::poll_fn(move |context| {
        while in_work.len() < window {
            let Poll::Ready(Some(next)) = begun.as_mut().poll_next(context) else {
                break;
            };
            let mut work = Box::pin(match next {
                Ok(next) => Either::Left(settle(next)),
                Err(status) => Either::Right(ready(Err::<A, _>(status))),
            });
            if in_work.is_empty()
                && let Poll::Ready(answer) = work.as_mut().poll(context)
            {
                return Poll::Ready(Some(answer));
            }
            in_work.push_back(work);
        }
        match in_work.poll_next_unpin(context) {
            Poll::Ready(Some(answer)) => Poll::Ready(Some(answer)),
            Poll::Ready(None) if begun.is_done() => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    })
}

/// Drives the work on a stream in a task of its own, so that what was begun is finished when the caller goes away, or reads
/// nothing. At most `window` requests are in work or wait to be answered, and as many answers wait for the caller. Work that
/// panics ends the stream with INTERNAL.
pub fn detached<Q, A, Answers>(
    runtime: &Runtime,
    name: &'static str,
    window: usize,
    requests: impl Stream<Item = Q> + Send + 'static,
    work: impl FnOnce(BoxStream<'static, Q>) -> Answers,
) -> impl Stream<Item = Result<A, Status>> + Send + 'static
where
    Q: Send + 'static,
    A: Send + 'static,
    Answers: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let window = window.max(1);
    let (sender, receiver) = mpsc::channel(window);
    let room = Arc::new(Semaphore::new(window));
    let answers = work(as_there_is_room(requests, &room));
    let driver = runtime.spawn(name, async move {
        let mut answers = std::pin::pin!(answers);
        let (mut has_more, mut finished) = (true, VecDeque::new());
        while has_more || !finished.is_empty() {
            tokio::select! {
                biased;
                place = sender.reserve(), if !finished.is_empty() => {
                    room.add_permits(1);
                    let answer = finished.pop_front();
                    // Nobody may want it any more; the requests end soon then.
                    if let (Ok(place), Some(answer)) = (place, answer) {
                        place.send(answer);
                    }
                }
                // Asked for while the caller is waited for, too: what is in work goes on only by that.
                answer = answers.next(), if has_more => match answer {
                    Some(answer) => finished.push_back(answer),
                    None => has_more = false,
                },
            }
        }
    });
    let end = futures::stream::once(driver).filter_map(|ended| {
        ready(ended.err().map(|error| {
            let message = format!("the work on the stream ended early: {error}");
            Err(ApiError::internal(message).into())
        }))
    });
    ReceiverStream::new(receiver).chain(end)
}

/// Lets a request in for each permit, which it takes along.
fn as_there_is_room<Q: Send + 'static>(
    requests: impl Stream<Item = Q> + Send + 'static,
    room: &Arc<Semaphore>,
) -> BoxStream<'static, Q> {
    let room = Arc::clone(room);
    let let_in = move |request| {
        let room = Arc::clone(&room);
        async move {
            // Nobody closes the semaphore.
            if let Ok(permit) = room.acquire().await {
                permit.forget();
            }
            request
        }
    };
    requests.then(let_in).boxed()
}

/// The stream up to and with its first error. What is behind the error is not asked for.
fn until_first_error<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    futures::stream::unfold(Some(Box::pin(stream)), |stream| async move {
        let mut stream = stream?;
        let item = stream.next().await?;
        let rest = item.is_ok().then_some(stream);
        Some((item, rest))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::stream::iter;
    use parking_lot::Mutex;
    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;

    type Log = Arc<Mutex<Vec<u32>>>;

    fn refused() -> Status {
        Status::invalid_argument("refused")
    }

    async fn codes(answers: impl Stream<Item = Result<u32, Status>>) -> Vec<Result<u32, Code>> {
        let codes = answers.map(|answer| answer.map_err(|status| status.code()));
        codes.collect().await
    }

    fn answers_of(
        requests: Vec<Result<u32, Status>>,
        log: &Log,
    ) -> impl Stream<Item = Result<u32, Status>> + Send + 'static {
        let log = Arc::clone(log);
        let begin = move |request: u32| {
            let log = Arc::clone(&log);
            async move {
                // Later requests would begin earlier if they did not wait for those before them.
                Runtime::real()
                    .sleep(Duration::from_millis(10 - u64::from(request % 10)))
                    .await;
                log.lock().push(request);
                if request == 7 {
                    Err(refused())
                } else {
                    Ok(request)
                }
            }
        };
        let settle = |request: u32| async move {
            Runtime::real()
                .sleep(Duration::from_millis(100 - u64::from(request)))
                .await;
            Ok(request)
        };
        in_order(iter(requests), 4, begin, settle)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_begin_and_are_answered_in_their_order() {
        let log = Log::default();
        let answers = codes(answers_of((20..40).map(Ok).collect(), &log)).await;
        assert_eq!(answers, (20..40).map(Ok).collect::<Vec<_>>());
        assert_eq!(*log.lock(), (20..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_settled_when_it_is_first_polled_is_answered_before_the_next_begins() {
        let log = Log::default();
        let begun = Arc::clone(&log);
        let begin = move |request: u32| {
            begun.lock().push(request);
            ready(Ok(request))
        };
        let settle = |request: u32| ready(Ok(request));
        let mut answers = std::pin::pin!(in_order(iter((0..3).map(Ok)), 2, begin, settle));
        for request in 0..3 {
            let answer = answers.next().await.map(Result::ok);
            assert_eq!(answer, Some(Some(request)));
            assert_eq!(*log.lock(), (0..=request).collect::<Vec<_>>());
        }
        assert!(answers.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_settled_when_it_is_first_polled_waits_for_what_is_in_work() {
        let settle = |request: u32| async move {
            if request % 3 == 1 {
                Runtime::real().sleep(Duration::from_secs(1)).await;
            }
            if request == 8 {
                Err(refused())
            } else {
                Ok(request)
            }
        };
        for window in 1..6 {
            let begin = |request: u32| ready(Ok(request));
            let answers = codes(in_order(iter((0..12).map(Ok)), window, begin, settle)).await;
            let mut expected: Vec<_> = (0..8).map(Ok).collect();
            expected.push(Err(Code::InvalidArgument));
            assert_eq!(answers, expected, "{window}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_begins_behind_a_request_that_could_not() {
        let log = Log::default();
        let answers = codes(answers_of((5..20).map(Ok).collect(), &log)).await;
        assert_eq!(answers, [Ok(5), Ok(6), Err(Code::InvalidArgument)]);
        assert_eq!(*log.lock(), [5, 6, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_stream_of_requests_is_the_last_answer() {
        let log = Log::default();
        let requests = vec![Ok(1), Err(Status::data_loss("cut")), Ok(2)];
        let answers = codes(answers_of(requests, &log)).await;
        assert_eq!(answers, [Ok(1), Err(Code::DataLoss)]);
        assert_eq!(*log.lock(), [1]);
    }

    #[tokio::test]
    async fn what_was_begun_is_finished_when_the_caller_has_gone() {
        let (release, released) = oneshot::channel::<()>();
        let (finished, has_finished) = oneshot::channel();
        let work = async move {
            let _ = released.await;
            let _ = finished.send(());
            Ok::<_, Status>(1)
        };
        let answers = |requests: BoxStream<'static, ()>| {
            drop(requests);
            futures::stream::once(work)
        };
        drop(detached(&Runtime::real(), "test", 1, iter([()]), answers));
        release.send(()).expect("the work waits for it");
        has_finished.await.expect("the work goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_work_is_finished_though_nobody_reads_and_no_more_is_begun() {
        let (begun, ended) = (Log::default(), Log::default());
        let (to_begun, to_ended) = (Arc::clone(&begun), Arc::clone(&ended));
        let work = |requests: BoxStream<'static, Result<u32, Status>>| {
            let begin = move |request| {
                to_begun.lock().push(request);
                ready(Ok(request))
            };
            let settle = move |request| {
                let ended = Arc::clone(&to_ended);
                async move {
                    Runtime::real().sleep(Duration::from_secs(1)).await;
                    ended.lock().push(request);
                    Ok(request)
                }
            };
            in_order(requests, 3, begin, settle)
        };
        let requests = iter((0..20).map(Ok));
        let answers = detached(&Runtime::real(), "test", 3, requests, work);
        Runtime::real().sleep(Duration::from_secs(60)).await;
        // Three wait for the caller, and three that have no place there.
        assert_eq!(*begun.lock(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(*ended.lock(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(codes(answers).await, (0..20).map(Ok).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn work_that_panics_ends_the_stream_with_an_error() {
        let work = |requests: BoxStream<'static, u32>| {
            requests.map(|number| {
                assert!(number < 1, "on purpose");
                Ok(number)
            })
        };
        let answers = detached(&Runtime::real(), "test", 4, iter(0..2), work);
        let answers: Vec<_> = answers.map(|at| at.map_err(|at| at.code())).collect().await;
        assert_eq!(answers, [Ok(0), Err(Code::Internal)]);
    }
}
