//! A stream whose peer has only so long to read what is sent to it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Fails once a response has waited for its reader for too long, all of it: one who reads a byte
/// now and then does not hold it for ever.
pub(super) struct Patience<S> {
    stream: S,
    limit: Duration,
    /// Since the first write that had to wait, until everything is written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// A `limit` of zero is none.
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None }
    }
}

impl<S> Patience<S> {
    /// Gives up once it has waited for too long.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() && self.waiting.is_none() && !self.limit.is_zero() {
            self.waiting = Some(Box::pin(sleep(self.limit)));
        }
        if let Some(waiting) = &mut self.waiting
            && waiting.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    // Without these two hyper would copy every answer, for each of its readers.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Called when nothing is left to be written.
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_who_reads_a_byte_now_and_then_is_cut_off() {
        let (mut reader, writer) = duplex(1);
        let mut writer = Patience::new(writer, Duration::from_secs(30));
        let writing = tokio::spawn(async move { writer.write_all(&[0; 1000]).await });
        let mut read = 0;
        while !writing.is_finished() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            read += usize::from(reader.read_u8().await.is_ok());
        }
        let error = writing.await.expect("no panic").expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((25..35).contains(&read), "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_in_time_does_not_count_against_the_next() {
        let (mut reader, writer) = duplex(1);
        let mut writer = Patience::new(writer, Duration::from_secs(30));
        let writing = tokio::spawn(async move {
            for _ in 0..10 {
                writer.write_all(&[0; 10]).await?;
                writer.flush().await?;
            }
            io::Result::Ok(())
        });
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            reader.read_u8().await.expect("open");
        }
        writing.await.expect("no panic").expect("all was read");
    }
}
