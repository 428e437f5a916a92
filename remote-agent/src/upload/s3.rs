//! S3-compatible stores. An object appears when it is whole, so that no temporary name is needed; large files go up in
//! parts.

use std::io::Read;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, Error, ObjectStore, PutPayload, WriteMultipart};

use super::{CONNECT, Parcel, SILENCE, Sum, Summing, UploadError, block_on};
use crate::config::Uploader;

/// Size of a part, in bytes; smaller files go up at once.
const PART: usize = 8 << 20;
/// Parts that are on their way at once.
const AT_ONCE: usize = 3;

pub(super) fn send(uploader: &Uploader, parcels: &[Parcel]) -> Result<Vec<Sum>, UploadError> {
    block_on(uploader, async {
        let store = open(uploader)?;
        let mut sums = Vec::new();
        for parcel in parcels {
            sums.push(put(uploader, &store, parcel).await?);
        }
        Ok(sums)
    })
}

fn open(uploader: &Uploader) -> Result<AmazonS3, UploadError> {
    let trust = |why: String| UploadError::Trust { server: uploader.server(), why };
    let mut options = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(SILENCE * 5)
        .with_allow_http(uploader.plaintext)
        .with_allow_invalid_certificates(uploader.insecure);
    if let Some(path) = &uploader.ca_file {
        let bytes = std::fs::read(path).map_err(|error| trust(format!("{}: {error}", path.display())))?;
        let bundle = Certificate::from_pem_bundle(&bytes)
            .map_err(|error| trust(format!("{}: {error}", path.display())))?;
        for certificate in bundle {
            options = options.with_root_certificate(certificate);
        }
    }
    AmazonS3Builder::new()
        .with_client_options(options)
        .with_endpoint(uploader.endpoint())
        .with_bucket_name(&uploader.bucket)
        .with_region(&uploader.region)
        .with_access_key_id(&uploader.user)
        .with_secret_access_key(uploader.password.expose())
        .with_virtual_hosted_style_request(false)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..object_store::RetryConfig::default() })
        .build()
        .map_err(|error| UploadError::Connection { server: uploader.server(), why: error.to_string() })
}

async fn put(uploader: &Uploader, store: &AmazonS3, parcel: &Parcel) -> Result<Sum, UploadError> {
    let failed = |error: Error| failure(uploader, parcel, &error);
    let path = Path::from_iter(parcel.path.iter().filter(|part| !part.is_empty()).map(String::as_str));
    let mut file = Summing::open(&parcel.file)?;
    let mut next = || {
        let mut piece = Vec::with_capacity(64 * 1024);
        match file.by_ref().take(PART as u64).read_to_end(&mut piece) {
            Ok(_) => Ok(piece),
            Err(source) => Err(UploadError::Local { path: parcel.file.clone(), source }),
        }
    };
    let first = next()?;
    if first.len() < PART {
        store.put(&path, PutPayload::from(first)).await.map_err(failed)?;
        return Ok(file.finish());
    }
    let mut upload =
        WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await.map_err(failed)?, PART);
    let mut piece = first;
    let sent = loop {
        if let Err(error) = upload.wait_for_capacity(AT_ONCE).await {
            break Err(failed(error));
        }
        upload.put(piece.into());
        piece = match next() {
            Ok(piece) if piece.is_empty() => break Ok(()),
            Ok(piece) => piece,
            Err(error) => break Err(error),
        };
    };
    if let Err(error) = sent {
        // Parts of an object that never comes to be cost money.
        let _ = upload.abort().await;
        return Err(error);
    }
    upload.finish().await.map_err(failed)?;
    Ok(file.finish())
}

fn failure(uploader: &Uploader, parcel: &Parcel, error: &Error) -> UploadError {
    let (server, why) = (uploader.server(), clip(&causes(error)));
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            UploadError::Login { server, user: uploader.user.clone(), why }
        }
        Error::NotFound { .. } => UploadError::Refused {
            server,
            path: parcel.target(),
            why: format!("is there a bucket `{}`? {why}", uploader.bucket),
        },
        _ => UploadError::Refused { server, path: parcel.target(), why },
    }
}

/// An error with everything below it.
fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Enough of a text to tell what it is about: some stores answer with a page.
fn clip(text: &str) -> String {
    text.chars().take(400).collect()
}
