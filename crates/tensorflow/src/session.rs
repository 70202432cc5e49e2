//! A graph ready to run.

use std::ffi::{CString, c_int};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Tensorflow;
use crate::api::{Api, CGraph, COutput, CSession, CSessionOptions};
use crate::status::Status;
use crate::tensor::{DataType, Feed, Held, Value};

/// Sessions made so far.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// A loaded SavedModel or an imported graph. Many threads may run it at once.
pub struct Session {
    library: Arc<Tensorflow>,
    graph: Graph,
    raw: *mut CSession,
    /// Unlike an address, never used again.
    number: u64,
}

/// A place in one session's graph where a tensor goes in or comes out.
#[derive(Clone, Copy)]
pub struct Port {
    output: COutput,
    /// Number of the session that it belongs to.
    session: u64,
}

// SAFETY: TensorFlow's sessions and graphs may be used and deleted by any thread, several at once; a port is a pointer
// into a graph that is never written to after it is made.
unsafe impl Send for Session {}
// SAFETY: see above.
unsafe impl Sync for Session {}
// SAFETY: see above.
unsafe impl Send for Port {}
// SAFETY: see above.
unsafe impl Sync for Port {}

struct Graph {
    api: &'static Api,
    raw: *mut CGraph,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `new_graph`, deleted once, after the session that runs it.
        unsafe { (self.api.delete_graph)(self.raw) }
    }
}

struct Options {
    api: &'static Api,
    raw: *mut CSessionOptions,
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new_session_options`, deleted once.
        unsafe { (self.api.delete_session_options)(self.raw) }
    }
}

impl Options {
    /// A run may use that many threads, of a pool that belongs to the session and goes with it.
    fn new(api: &'static Api, threads: u8) -> Result<Options, String> {
        // SAFETY: makes a new object, which `drop` deletes.
        let options = Options { api, raw: unsafe { (api.new_session_options)() } };
        let threads = threads.clamp(1, 127);
        // A `ConfigProto`: intra_op_parallelism_threads, inter_op_parallelism_threads, use_per_session_threads.
        let config = [0x10, threads, 0x28, 1, 0x48, 1];
        let status = Status::new(api);
        // SAFETY: `config` has the length that is said, and is copied.
        unsafe { (api.set_config)(options.raw, config.as_ptr().cast(), config.len(), status.raw()) };
        status.check()?;
        Ok(options)
    }
}

impl Session {
    /// Loads the part of a SavedModel that has these tags.
    ///
    /// # Errors
    /// What TensorFlow says.
    pub fn saved_model(
        library: &Arc<Tensorflow>,
        folder: &Path,
        tags: &[String],
        threads: u8,
    ) -> Result<Session, String> {
        let api = library.api;
        let text = |text: &str| CString::new(text).map_err(|_| format!("`{text}` contains a zero byte"));
        let folder = text(folder.to_str().ok_or("the folder's name is not UTF-8")?)?;
        let tags = tags.iter().map(|tag| text(tag)).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<_> = tags.iter().map(|tag| tag.as_ptr()).collect();
        let (options, graph, status) = (Options::new(api, threads)?, new_graph(api), Status::new(api));
        // SAFETY: texts are zero-terminated and live until the call is over; null stands for no options and no wish
        // for the meta graph.
        let raw = unsafe {
            (api.load_saved_model)(
                options.raw,
                null(),
                folder.as_ptr(),
                pointers.as_ptr(),
                pointers.len() as c_int,
                graph.raw,
                null_mut(),
                status.raw(),
            )
        };
        status.check()?;
        Session::with(library, graph, raw)
    }

    /// Imports a serialized `GraphDef` whose variables are constants.
    ///
    /// # Errors
    /// What TensorFlow says.
    pub fn graph(library: &Arc<Tensorflow>, content: &[u8], threads: u8) -> Result<Session, String> {
        let api = library.api;
        let (options, graph, status) = (Options::new(api, threads)?, new_graph(api), Status::new(api));
        // SAFETY: the buffer copies `content`; both it and the import's options are deleted after the call.
        unsafe {
            let buffer = (api.new_buffer_from_string)(content.as_ptr().cast(), content.len());
            let import = (api.new_import_options)();
            (api.import_graph)(graph.raw, buffer, import, status.raw());
            (api.delete_import_options)(import);
            (api.delete_buffer)(buffer);
        }
        status.check()?;
        // SAFETY: graph and options live until the call is over; the graph outlives the session.
        let raw = unsafe { (api.new_session)(graph.raw, options.raw, status.raw()) };
        status.check()?;
        Session::with(library, graph, raw)
    }

    fn with(library: &Arc<Tensorflow>, graph: Graph, raw: *mut CSession) -> Result<Session, String> {
        if raw.is_null() {
            return Err("TensorFlow gave no session".into());
        }
        let number = SESSIONS.fetch_add(1, Relaxed);
        Ok(Session { library: Arc::clone(library), graph, raw, number })
    }

    /// The port of a tensor's name such as `serving_default_x:0`; without a number, the operation's first output.
    ///
    /// # Errors
    /// When the graph has no such operation or output.
    pub fn port(&self, name: &str) -> Result<Port, String> {
        let (operation, index) = match name.rsplit_once(':') {
            Some((operation, index)) => (operation, index.parse::<c_int>().ok()),
            None => (name, Some(0)),
        };
        let missing = || format!("the graph has no tensor `{name}`");
        let index = index.filter(|index| *index >= 0).ok_or_else(missing)?;
        let operation = CString::new(operation).map_err(|_| missing())?;
        // SAFETY: the text is zero-terminated; a null answer is checked for.
        let operation = unsafe { (self.library.api.operation_by_name)(self.graph.raw, operation.as_ptr()) };
        // SAFETY: the operation is not null and lives as long as the graph.
        if operation.is_null() || index >= unsafe { (self.library.api.operation_outputs)(operation) } {
            return Err(missing());
        }
        Ok(Port { output: COutput { operation, index }, session: self.number })
    }

    /// Element type and shape of what comes out there, as far as the graph says: -1 for an open dimension, no shape for
    /// an open rank, no type for one that can't cross.
    pub fn describe(&self, port: Port) -> (Option<DataType>, Option<Vec<i64>>) {
        if port.session != self.number {
            return (None, None);
        }
        let (api, status) = (self.library.api, Status::new(self.library.api));
        // SAFETY: the port is of this graph; the shape has room for the rank that the library just gave.
        unsafe {
            let kind = DataType::from_number((api.output_type)(port.output));
            let rank = (api.output_rank)(self.graph.raw, port.output, status.raw());
            let Ok(room) = usize::try_from(rank) else { return (kind, None) };
            let mut shape = vec![-1; room];
            (api.output_shape)(self.graph.raw, port.output, shape.as_mut_ptr(), rank, status.raw());
            (kind, status.check().is_ok().then_some(shape))
        }
    }

    /// Computes the outputs. Blocks for as long as it takes.
    ///
    /// # Errors
    /// What TensorFlow says; a port of another session; data that doesn't fill its shape.
    pub fn run(&self, inputs: &[(Port, Feed<'_>)], outputs: &[Port]) -> Result<Vec<Value>, String> {
        let api = self.library.api;
        let own = |port: &Port| port.session == self.number;
        if !inputs.iter().map(|(port, _)| port).chain(outputs).all(own) {
            return Err("a port belongs to another session".into());
        }
        let fed = inputs.iter().map(|(_, feed)| Held::new(api, feed)).collect::<Result<Vec<_>, _>>()?;
        let given: Vec<_> = fed.iter().map(Held::raw).collect();
        let ports: Vec<_> = inputs.iter().map(|(port, _)| port.output).collect();
        let wanted: Vec<_> = outputs.iter().map(|port| port.output).collect();
        let mut results = vec![null_mut(); wanted.len()];
        let status = Status::new(api);
        // SAFETY: each array has the length that is said; tensors and ports are alive and of this graph.
        unsafe {
            (api.session_run)(
                self.raw,
                null(),
                ports.as_ptr(),
                given.as_ptr(),
                given.len() as c_int,
                wanted.as_ptr(),
                results.as_mut_ptr(),
                results.len() as c_int,
                null(),
                0,
                null_mut(),
                status.raw(),
            );
        }
        // SAFETY: what is not null is a tensor that is now ours.
        let results: Vec<Held> = results
            .into_iter()
            .filter(|raw| !raw.is_null())
            .map(|raw| unsafe { Held::of(api, raw) })
            .collect();
        status.check()?;
        if results.len() != outputs.len() {
            return Err(format!("{} of {} outputs came", results.len(), outputs.len()));
        }
        results.iter().map(Held::value).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (api, status) = (self.library.api, Status::new(self.library.api));
        // SAFETY: made by TensorFlow, closed and deleted once; its graph goes after it.
        unsafe {
            (api.close_session)(self.raw, status.raw());
            (api.delete_session)(self.raw, status.raw());
        }
    }
}

fn new_graph(api: &'static Api) -> Graph {
    // SAFETY: makes a new object, which `drop` deletes.
    Graph { api, raw: unsafe { (api.new_graph)() } }
}
