//! Requests and answers.
//!
//! `POST /predict` takes an image as its body, or several as the parts of a form. What is wrong with a request is told
//! by the status: 413 too large, 415 no image type, 422 no image or too many pixels, 408 sent too slowly, 429 too many
//! are waiting, 503 not answered in time, or stopping.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use convzoo::data::decode;
use convzoo::{Prediction, Preprocessing, preprocess};
use image::ImageReader;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::batch::{Queue, Refused};
use crate::metrics::Metrics;

/// What requests may ask for.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The most bytes of a body.
    pub bytes: usize,
    /// The most pixels of an image.
    pub pixels: u64,
    /// The most images of a form.
    pub images: usize,
    /// The longest that a body may take to come, and then its answer.
    pub time: Duration,
}

/// What all requests share.
pub struct Service {
    pub queue: Queue,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    /// How images become the network's input.
    pub preprocessing: Preprocessing,
    /// Channels, height and width of that.
    pub input: [usize; 3],
    /// Of who may decode an image: as many as there are cores.
    pub decoders: Semaphore,
}

/// The paths of the service.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/predict", post(predict))
        .route("/health", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(service.limits.bytes))
        .with_state(service)
}

async fn metrics(State(service): State<Arc<Service>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], service.metrics.text())
}

/// What is wrong with a request.
struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        let mut response = (status, document(&json!({ "error": error }))).into_response();
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        response
    }
}

fn document(value: &Value) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], value.to_string())
}

async fn predict(State(service): State<Arc<Service>>, request: Request) -> Response {
    let start = Instant::now();
    let answered = service.answer(request).await;
    let response = answered.map_or_else(IntoResponse::into_response, |answer| document(&answer).into_response());
    service.metrics.request(response.status().as_u16(), start.elapsed());
    response
}

impl Service {
    async fn answer(&self, request: Request) -> Result<Value, Problem> {
        let time = self.limits.time;
        let slow = |_| Problem(StatusCode::REQUEST_TIMEOUT, format!("the body took more than {time:?} to come"));
        let (is_form, images) = timeout(time, self.images(request)).await.map_err(slow)??;
        let late = |_| Problem(StatusCode::SERVICE_UNAVAILABLE, format!("not answered within {time:?}"));
        let mut answers = timeout(time, self.classify(images)).await.map_err(late)??;
        Ok(match (is_form, answers.pop()) {
            (false, Some((_, top))) => json!({ "top": top }),
            (_, last) => {
                answers.extend(last);
                let images = answers.into_iter().map(|(image, top)| json!({ "image": image, "top": top }));
                json!({ "images": images.collect::<Vec<_>>() })
            }
        })
    }

    /// The images of a request, with their names, and whether they are parts of a form.
    async fn images(&self, request: Request) -> Result<(bool, Vec<(String, Bytes)>), Problem> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "image/jpeg" | "image/png" | "image/webp" | "image/bmp" | "image/gif" => {
                let refused =
                    |refused: axum::extract::rejection::BytesRejection| Problem(refused.status(), refused.body_text());
                Ok((false, vec![(String::new(), Bytes::from_request(request, &()).await.map_err(refused)?)]))
            }
            "multipart/form-data" => Ok((true, self.parts(request).await?)),
            kind => {
                let error = format!("'{kind}' is no type of image: image/jpeg, image/png or multipart/form-data");
                Err(Problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
            }
        }
    }

    async fn parts(&self, request: Request) -> Result<Vec<(String, Bytes)>, Problem> {
        let refused =
            |refused: axum::extract::multipart::MultipartRejection| Problem(refused.status(), refused.body_text());
        let wrong = |wrong: axum::extract::multipart::MultipartError| Problem(wrong.status(), wrong.body_text());
        let mut form = Multipart::from_request(request, &()).await.map_err(refused)?;
        let mut images = Vec::new();
        while let Some(part) = form.next_field().await.map_err(wrong)? {
            if images.len() == self.limits.images {
                let error = format!("more than the {} images that a request may have", self.limits.images);
                return Err(Problem(StatusCode::PAYLOAD_TOO_LARGE, error));
            }
            let name = part.file_name().or(part.name()).unwrap_or_default().to_owned();
            images.push((name, part.bytes().await.map_err(wrong)?));
        }
        match images.is_empty() {
            true => Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, "the form has no images".to_owned())),
            false => Ok(images),
        }
    }

    /// The classes of each image. All are read first, so that a wrong one costs the network nothing.
    async fn classify(&self, images: Vec<(String, Bytes)>) -> Result<Vec<(String, Vec<Prediction>)>, Problem> {
        let failed = |error: String| Problem(StatusCode::INTERNAL_SERVER_ERROR, error);
        let coming: Vec<_> = images.iter().map(|_| self.queue.announce()).collect();
        let mut inputs = Vec::with_capacity(images.len());
        for (name, bytes) in images {
            let turn = self.decoders.acquire().await.map_err(|closed| failed(closed.to_string()))?;
            let (preprocessing, input, pixels) = (self.preprocessing, self.input, self.limits.pixels);
            let read = tokio::task::spawn_blocking(move || prepare(&bytes, pixels, &preprocessing, input)).await;
            drop(turn);
            let input = read.map_err(|error| failed(error.to_string()))?.map_err(|error| {
                let error = if name.is_empty() { error } else { format!("{name}: {error}") };
                Problem(StatusCode::UNPROCESSABLE_ENTITY, error)
            })?;
            inputs.push((name, input));
        }
        let waiting =
            inputs.into_iter().zip(coming).map(|((name, input), coming)| match self.queue.push(coming, input) {
                Ok(answer) => Ok((name, answer)),
                Err(Refused::Full) => {
                    Err(Problem(StatusCode::TOO_MANY_REQUESTS, "too many images are waiting; try again".to_owned()))
                }
                Err(Refused::Ended) => {
                    Err(Problem(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping".to_owned()))
                }
            });
        let waiting = waiting.collect::<Result<Vec<_>, _>>()?;
        let mut answers = Vec::new();
        for (name, answer) in waiting {
            let answer = answer.await.map_err(|_| failed("the network has stopped".to_owned()))?;
            answers.push((name, answer.map_err(failed)?));
        }
        Ok(answers)
    }
}

/// The network's input of an image file. Its size is read before its pixels, so that no small file becomes a large
/// image.
fn prepare(bytes: &[u8], most: u64, preprocessing: &Preprocessing, input: [usize; 3]) -> Result<Vec<f32>, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    let (width, height) = reader.into_dimensions().map_err(|error| error.to_string().trim_end().to_owned())?;
    if u64::from(width) * u64::from(height) > most {
        return Err(format!("{width} × {height} pixels are more than the {most} that are taken"));
    }
    let image = decode(bytes).map_err(|error| error.to_string())?;
    Ok(preprocess(preprocessing, input, &image).apply(&image))
}
