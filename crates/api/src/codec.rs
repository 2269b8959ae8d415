//! The codecs of the generated services.
//!
//! Both write and read plain protobuf by way of prost. They differ in whom they blame for bytes that are no valid
//! message (a broken encoding, a string that is not UTF-8): in a server it is the caller, who gets
//! `INVALID_ARGUMENT`; in a client it is the server, and the caller of the client sees `INTERNAL`. Stock
//! codecs answer `INTERNAL` on both sides.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Reads requests, writes responses.
#[derive(Debug, Clone)]
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

/// Writes requests, reads responses.
#[derive(Debug, Clone)]
pub struct ClientCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Default for ClientCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ServerCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = RequestDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

impl<T, U> Codec for ClientCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = ResponseDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ResponseDecoder(PhantomData)
    }
}

/// Writes a message as protobuf.
#[derive(Debug, Clone)]
pub struct MessageEncoder<T>(PhantomData<T>);

/// Reads a request; what is malformed is the caller's fault.
#[derive(Debug, Clone)]
pub struct RequestDecoder<U>(PhantomData<U>);

/// Reads a response; what is malformed is the server's fault.
#[derive(Debug, Clone)]
pub struct ResponseDecoder<U>(PhantomData<U>);

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

impl<U: Message + Default> Decoder for RequestDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(&mut *buf).map(Some).map_err(|error| {
            // The rest of a broken message must not be taken for the start of the next one.
            buf.advance(buf.remaining());
            crate::error::ApiError::malformed(&error).into()
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl<U: Message + Default> Decoder for ResponseDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(&mut *buf).map(Some).map_err(|error| {
            buf.advance(buf.remaining());
            Status::internal(format!("the server sent a malformed message: {error}"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
