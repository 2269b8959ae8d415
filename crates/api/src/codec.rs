//! The codecs of the generated services.
//!
//! Both write and read plain protobuf by way of prost. They differ in whom they blame for bytes that are no valid
//! message (a broken encoding, a string that is not UTF-8): in a server it is the caller, who gets
//! `INVALID_ARGUMENT`; in a client it is the server, and the caller of the client sees `INTERNAL`. Stock
//! codecs answer `INTERNAL` on both sides.

use std::fmt;
use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::error::ApiError;

/// Reads requests, writes responses.
pub type ServerCodec<T, U> = MessageCodec<T, U, Caller>;

/// Writes requests, reads responses.
pub type ClientCodec<T, U> = MessageCodec<T, U, Server>;

/// Whose fault a malformed message is.
pub trait Blame: fmt::Debug + Send + 'static {
    /// What is answered to it.
    fn malformed(error: &DecodeError) -> Status;
}

/// The caller's: it sent a request that cannot be read.
#[derive(Debug, Clone, Copy)]
pub struct Caller;

/// The server's: it sent a response that cannot be read.
#[derive(Debug, Clone, Copy)]
pub struct Server;

impl Blame for Caller {
    fn malformed(error: &DecodeError) -> Status {
        ApiError::malformed(error).for_write().into()
    }
}

impl Blame for Server {
    fn malformed(error: &DecodeError) -> Status {
        Status::internal(format!("the server sent a malformed message: {error}"))
    }
}

/// Writes `T` and reads `U`; a `U` that is malformed is `B`'s fault.
#[derive(Debug, Clone)]
pub struct MessageCodec<T, U, B>(PhantomData<(T, U, B)>);

impl<T, U, B> Default for MessageCodec<T, U, B> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U, B> Codec for MessageCodec<T, U, B>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
    B: Blame,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U, B>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Writes a message as protobuf.
#[derive(Debug, Clone)]
pub struct MessageEncoder<T>(PhantomData<T>);

/// Reads a message; what is malformed is `B`'s fault.
#[derive(Debug, Clone)]
pub struct MessageDecoder<U, B>(PhantomData<(U, B)>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Fails only for want of space, and this buffer grows.
        item.encode(buf)
            .map_err(|error| Status::internal(format!("cannot encode a message: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl<U: Message + Default, B: Blame> Decoder for MessageDecoder<U, B> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(&mut *buf).map(Some).map_err(|error| {
            // The rest of a broken message must not be taken for the start of the next one.
            buf.advance(buf.remaining());
            B::malformed(&error)
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
