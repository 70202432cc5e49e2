//! What S3 clients ask for.

use std::io::SeekFrom;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::body::{Announced, checked};
use super::conditions::{self, OfReader};
use super::errors::s3_error;
use super::lists::{self, timestamp};
use crate::{CompletedPart as PartToComplete, Error, Objects, PutOptions, UploadOptions};

/// [`Objects`] as S3 shows them.
pub struct S3Front {
    objects: Objects,
}

/// Bytes read from a file at a time.
const READ: usize = 256 << 10;
/// How many keys one request may delete, as S3 has it.
const KEYS_TO_DELETE: usize = 1000;

type Answer<T> = S3Result<S3Response<T>>;

impl S3Front {
    pub(super) fn new(objects: Objects) -> Self {
        Self { objects }
    }
}

pub(super) fn etag(hex: String) -> ETag {
    ETag::Strong(hex)
}

#[async_trait::async_trait]
impl S3 for S3Front {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        self.objects.create_bucket(&req.input.bucket).await.map_err(s3_error)?;
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        self.objects.delete_bucket(&req.input.bucket).await.map_err(s3_error)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.objects.bucket(&req.input.bucket).await.map_err(s3_error)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.objects.bucket(&req.input.bucket).await.map_err(s3_error)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let buckets = self.objects.buckets().await.map_err(s3_error)?.into_iter().map(|bucket| Bucket {
            name: Some(bucket.name),
            creation_date: Some(timestamp(bucket.created)),
            ..Default::default()
        });
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        lists::version_1(&self.objects, req.input).await.map(S3Response::new)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        lists::version_2(&self.objects, req.input).await.map(S3Response::new)
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = req.input;
        conditions::refuse_encryption(
            input.server_side_encryption.is_some() || input.sse_customer_algorithm.is_some(),
        )?;
        let options = PutOptions {
            content_type: input.content_type,
            metadata: conditions::metadata(input.metadata),
            expected_length: conditions::length(input.content_length),
            expected_md5: conditions::md5(input.content_md5.as_deref())?,
            condition: conditions::of_writer(input.if_match, input.if_none_match)?,
            ..PutOptions::default()
        };
        let announced = Announced::new(&req.headers, req.trailing_headers);
        let body = checked(input.body, announced.clone());
        let info = self.objects.put(&input.bucket, &input.key, body, options).await.map_err(s3_error)?;
        let sums = announced.all();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(etag(info.etag)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let input = req.input;
        let (info, mut file) = self.objects.get(&input.bucket, &input.key).await.map_err(s3_error)?;
        OfReader {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(&info)?;
        conditions::refuse_part(input.part_number)?;
        let range = conditions::range(input.range, info.size)?;
        let (start, end) = range.as_ref().map_or((0, info.size), |range| (range.start, range.end));
        if start > 0 {
            file.seek(SeekFrom::Start(start))
                .await
                .map_err(|source| s3_error(Error::disk("blobs", source)))?;
        }
        let length = end.saturating_sub(start);
        let capacity = READ.min(usize::try_from(length).unwrap_or(READ)).max(1);
        let body = StreamingBlob::wrap(ReaderStream::with_capacity(file.take(length), capacity));
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(body),
            content_length: i64::try_from(length).ok(),
            content_range: range
                .map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, info.size)),
            content_type: info.content_type,
            e_tag: Some(etag(info.etag)),
            last_modified: Some(timestamp(info.last_modified)),
            metadata: Some(info.metadata.into_iter().collect()),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let input = req.input;
        let info = self.objects.head(&input.bucket, &input.key).await.map_err(s3_error)?;
        OfReader {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(&info)?;
        conditions::refuse_part(input.part_number)?;
        let range = conditions::range(input.range, info.size)?;
        let length = range.as_ref().map_or(info.size, |range| range.end - range.start);
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(length).ok(),
            content_range: range
                .map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, info.size)),
            content_type: info.content_type,
            e_tag: Some(etag(info.etag)),
            last_modified: Some(timestamp(info.last_modified)),
            metadata: Some(info.metadata.into_iter().collect()),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let input = req.input;
        if input.if_match.is_some()
            || input.if_match_size.is_some()
            || input.if_match_last_modified_time.is_some()
        {
            return Err(s3_error!(
                NotImplemented,
                "conditional deletion is not supported; delete without `If-Match`"
            ));
        }
        self.objects.delete(&input.bucket, &input.key).await.map_err(s3_error)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let Delete { objects, quiet } = req.input.delete;
        if objects.len() > KEYS_TO_DELETE {
            return Err(s3_error!(
                MalformedXML,
                "{} keys are to be deleted; send at most 1000",
                objects.len()
            ));
        }
        let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
        self.objects.delete_all(&req.input.bucket, keys.clone()).await.map_err(s3_error)?;
        let deleted = keys.into_iter().map(|key| DeletedObject { key: Some(key), ..Default::default() });
        let deleted = (quiet != Some(true)).then(|| deleted.collect());
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..Default::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let input = req.input;
        conditions::refuse_encryption(
            input.server_side_encryption.is_some() || input.sse_customer_algorithm.is_some(),
        )?;
        let source = conditions::source(&input.copy_source)?;
        let (info, file) = self.objects.get(source.0, source.1).await.map_err(s3_error)?;
        OfReader {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        }
        .check_source(&info)?;
        let replace = input
            .metadata_directive
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let (content_type, metadata) = if replace {
            (input.content_type, conditions::metadata(input.metadata))
        } else {
            (info.content_type, info.metadata)
        };
        let options =
            PutOptions { content_type, metadata, expected_length: Some(info.size), ..PutOptions::default() };
        let body = ReaderStream::with_capacity(file, READ);
        let info = self.objects.put(&input.bucket, &input.key, body, options).await.map_err(s3_error)?;
        let copy_object_result = Some(CopyObjectResult {
            e_tag: Some(etag(info.etag)),
            last_modified: Some(timestamp(info.last_modified)),
            ..Default::default()
        });
        Ok(S3Response::new(CopyObjectOutput { copy_object_result, ..Default::default() }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let input = req.input;
        conditions::refuse_encryption(
            input.server_side_encryption.is_some() || input.sse_customer_algorithm.is_some(),
        )?;
        let options = UploadOptions {
            content_type: input.content_type,
            metadata: conditions::metadata(input.metadata),
        };
        let upload =
            self.objects.create_upload(&input.bucket, &input.key, options).await.map_err(s3_error)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let input = req.input;
        let options = PutOptions {
            expected_length: conditions::length(input.content_length),
            expected_md5: conditions::md5(input.content_md5.as_deref())?,
            ..PutOptions::default()
        };
        let announced = Announced::new(&req.headers, req.trailing_headers);
        let body = checked(input.body, announced.clone());
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let number = u32::try_from(input.part_number).unwrap_or(0);
        let part = self.objects.upload_part(upload, number, body, options).await.map_err(s3_error)?;
        let sums = announced.all();
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(etag(part.etag)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            ..Default::default()
        }))
    }

    async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
        let input = req.input;
        let source = conditions::source(&input.copy_source)?;
        let (info, mut file) = self.objects.get(source.0, source.1).await.map_err(s3_error)?;
        OfReader {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        }
        .check_source(&info)?;
        let range = match &input.copy_source_range {
            Some(text) => {
                let invalid =
                    |_| s3_error!(InvalidArgument, "`x-amz-copy-source-range` = {text:?}: is not a range");
                Range::parse(text).map_err(invalid)?.check(info.size)?
            }
            None => 0..info.size,
        };
        file.seek(SeekFrom::Start(range.start))
            .await
            .map_err(|source| s3_error(Error::disk("blobs", source)))?;
        let length = range.end - range.start;
        let options = PutOptions { expected_length: Some(length), ..PutOptions::default() };
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let number = u32::try_from(input.part_number).unwrap_or(0);
        let body = ReaderStream::with_capacity(file.take(length), READ);
        let part = self.objects.upload_part(upload, number, body, options).await.map_err(s3_error)?;
        let copy_part_result = Some(CopyPartResult {
            e_tag: Some(etag(part.etag)),
            last_modified: Some(timestamp(part.last_modified)),
            ..Default::default()
        });
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = req.input;
        let condition = conditions::of_writer(input.if_match, input.if_none_match)?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let parts = parts.into_iter().map(|part| PartToComplete {
            number: part.part_number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            etag: part.e_tag.map(ETag::into_value),
        });
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let info =
            self.objects.complete_upload(upload, parts.collect(), condition).await.map_err(s3_error)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", info.bucket, info.key)),
            bucket: Some(info.bucket),
            key: Some(info.key),
            e_tag: Some(etag(info.etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let input = req.input;
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        self.objects.abort_upload(upload).await.map_err(s3_error)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let input = req.input;
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let limit = usize::try_from(input.max_parts.unwrap_or(1000)).unwrap_or(0).min(1000);
        let after = input.part_number_marker.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let mut parts = self.objects.parts(upload, after, limit + 1).await.map_err(s3_error)?;
        let more = parts.len() > limit;
        parts.truncate(limit);
        let last = parts.last().and_then(|part| i32::try_from(part.number).ok());
        let parts = parts.into_iter().map(|part| Part {
            part_number: i32::try_from(part.number).ok(),
            e_tag: Some(etag(part.etag)),
            size: i64::try_from(part.size).ok(),
            last_modified: Some(timestamp(part.last_modified)),
            ..Default::default()
        });
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(more),
            max_parts: i32::try_from(limit).ok(),
            next_part_number_marker: last.filter(|_| more),
            parts: Some(parts.collect()),
            ..Default::default()
        }))
    }
}
