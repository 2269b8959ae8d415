//! What a machine sees of the network: streams, listeners and the trait by which it is asked.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use runtime::{Connection, Listener, Network};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::Pipe;
use super::{Dial, HostId, Listening, Net, State, host_of};

impl State {
    pub(super) fn io(&self, read: u64, write: u64) -> SimIo {
        SimIo {
            net: self.own.clone(),
            read,
            write,
        }
    }
}

/// One end of a connection.
pub(super) struct SimIo {
    net: Weak<Mutex<State>>,
    read: u64,
    write: u64,
}

fn reset() -> Error {
    Error::from(ErrorKind::ConnectionReset)
}

/// Replaces a waker; the old one is dropped by the caller when the lock is free.
fn wait(slot: &mut Option<Waker>, context: &Context<'_>) -> Option<Waker> {
    if slot
        .as_ref()
        .is_some_and(|old| old.will_wake(context.waker()))
    {
        return None;
    }
    slot.replace(context.waker().clone())
}

impl AsyncRead for SimIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let Some(net) = self.net.upgrade() else {
            return Poll::Ready(Err(reset()));
        };
        let (polled, waker) = {
            let mut state = net.lock();
            match state.pipes.get_mut(&self.read) {
                None => (Poll::Ready(Err(reset())), None),
                Some(pipe) if pipe.is_reset => (Poll::Ready(Err(reset())), None),
                Some(pipe) => match pipe.read(buffer) {
                    Some(()) => (Poll::Ready(Ok(())), pipe.writer.take()),
                    None => {
                        let old = wait(&mut pipe.reader, context);
                        drop_later(&mut state.replaced, old);
                        (Poll::Pending, None)
                    }
                },
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        tidy(&net);
        polled
    }
}

impl AsyncWrite for SimIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let Some(net) = self.net.upgrade() else {
            return Poll::Ready(Err(reset()));
        };
        let polled = {
            let mut state = net.lock();
            match state.pipes.get_mut(&self.write) {
                None => Poll::Ready(Err(reset())),
                Some(pipe) if pipe.is_reset || pipe.closed => {
                    Poll::Ready(Err(Error::from(ErrorKind::BrokenPipe)))
                }
                Some(pipe) if pipe.room() == 0 => {
                    let old = wait(&mut pipe.writer, context);
                    drop_later(&mut state.replaced, old);
                    Poll::Pending
                }
                Some(pipe) => {
                    let count = bytes.len().min(pipe.room());
                    let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
                    state.send(self.write, Some(data));
                    Poll::Ready(Ok(count))
                }
            }
        };
        tidy(&net);
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(net) = self.net.upgrade() {
            net.lock().close(self.write);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        let Some(net) = self.net.upgrade() else {
            return;
        };
        net.lock().leave(self.read, self.write);
        tidy(&net);
    }
}

fn drop_later(list: &mut Vec<Waker>, waker: Option<Waker>) {
    list.extend(waker);
}

/// Drops replaced wakers with the lock free.
fn tidy(net: &Arc<Mutex<State>>) {
    let replaced = {
        let mut state = net.lock();
        std::mem::take(&mut state.replaced)
    };
    drop(replaced);
}

impl State {
    /// Sends the end of a pipe on its way.
    fn close(&mut self, id: u64) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        if !pipe.closed {
            pipe.closed = true;
            self.send(id, None);
        }
    }

    /// One end of a connection is gone.
    pub(super) fn leave(&mut self, read: u64, write: u64) {
        let host = self.pipes.get(&read).map(|pipe| pipe.ends.1);
        if host.is_some_and(|host| self.dark.contains(&host)) {
            // The machine says nothing more; when it has power again, it does not know the connection.
            if let Some(pipe) = self.pipes.get_mut(&write) {
                pipe.closed = true;
            }
        } else {
            self.close(write);
        }
        if let Some(pipe) = self.pipes.get_mut(&read) {
            pipe.unread = true;
            let old = pipe.reader.take();
            self.replaced.extend(old);
        }
        let is_over = |pipe: Option<&Pipe>| pipe.is_none_or(|pipe| pipe.unread && pipe.closed);
        if is_over(self.pipes.get(&read)) && is_over(self.pipes.get(&write)) {
            for id in [read, write] {
                if let Some(pipe) = self.pipes.remove(&id) {
                    self.replaced.extend(pipe.reader);
                    self.replaced.extend(pipe.writer);
                }
            }
        }
    }
}

/// The network as one machine sees it.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    pub(crate) net: Net,
    pub(crate) host: HostId,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Network for HostNetwork {
    fn bind(&self, address: SocketAddr) -> BoxFuture<Result<Listener>> {
        let bound = self.listen(address);
        Box::pin(async move { bound })
    }

    fn connect(&self, authority: String) -> BoxFuture<Result<Connection>> {
        let Ok(to) = authority.parse() else {
            let unknown = Error::new(ErrorKind::NotFound, "no such host");
            return Box::pin(async move { Err(unknown) });
        };
        let mut state = self.net.0.lock();
        let id = state.number();
        let due = state.now + state.latency(self.host, host_of(to)) * 2;
        let dial = Dial {
            from: self.host,
            to,
            due,
            waker: None,
            result: None,
        };
        state.dials.insert(id, dial);
        drop(state);
        Box::pin(Dialling {
            net: self.net.clone(),
            id,
        })
    }
}

impl HostNetwork {
    fn listen(&self, address: SocketAddr) -> Result<Listener> {
        let mut state = self.net.0.lock();
        if host_of(address) != self.host {
            return Err(Error::from(ErrorKind::AddrNotAvailable));
        }
        if state.listening.contains_key(&address) {
            return Err(Error::from(ErrorKind::AddrInUse));
        }
        let generation = state.number();
        let listening = Listening {
            generation,
            queue: VecDeque::new(),
            waker: None,
        };
        state.listening.insert(address, listening);
        let accepts = Accepts {
            net: self.net.clone(),
            address,
            generation,
        };
        Ok(Listener::from_stream(accepts, address))
    }
}

struct Dialling {
    net: Net,
    id: u64,
}

impl Future for Dialling {
    type Output = Result<Connection>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.net.0.lock();
        let Some(dial) = state.dials.get_mut(&self.id) else {
            return Poll::Ready(Err(reset()));
        };
        match dial.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                let old = wait(&mut dial.waker, context);
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        let dial = {
            let mut state = self.net.0.lock();
            state.dials.remove(&self.id)
        };
        drop(dial);
    }
}

struct Accepts {
    net: Net,
    address: SocketAddr,
    generation: u64,
}

impl Stream for Accepts {
    type Item = Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.net.0.lock();
        let Some(listening) = state.listening.get_mut(&self.address) else {
            return Poll::Ready(None);
        };
        match listening.queue.pop_front() {
            Some(connection) => Poll::Ready(Some(Ok(connection))),
            None => {
                let old = wait(&mut listening.waker, context);
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl Drop for Accepts {
    fn drop(&mut self) {
        let closed = {
            let mut state = self.net.0.lock();
            let own = state.listening.get(&self.address);
            if own.is_some_and(|own| own.generation == self.generation) {
                state.listening.remove(&self.address)
            } else {
                None
            }
        };
        drop(closed);
    }
}
