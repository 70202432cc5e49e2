//! The functions of TensorFlow's C API that this crate calls, with their C types.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use libloading::Library;

/// C types that are only ever pointed to.
#[repr(C)]
pub struct CStatus(c_void);
#[repr(C)]
pub struct CGraph(c_void);
#[repr(C)]
pub struct CSession(c_void);
#[repr(C)]
pub struct CSessionOptions(c_void);
#[repr(C)]
pub struct CImportOptions(c_void);
#[repr(C)]
pub struct CBuffer(c_void);
#[repr(C)]
pub struct CTensor(c_void);
#[repr(C)]
pub struct COperation(c_void);

/// `TF_TString`: 24 bytes in every version since 2.4, aligned as a pointer.
#[repr(C, align(8))]
pub struct CString24([u8; 24]);

/// `TF_Output`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct COutput {
    pub operation: *mut COperation,
    pub index: c_int,
}

type Run = unsafe extern "C" fn(
    *mut CSession,
    run_options: *const CBuffer,
    inputs: *const COutput,
    input_values: *const *mut CTensor,
    c_int,
    outputs: *const COutput,
    output_values: *mut *mut CTensor,
    c_int,
    targets: *const *const COperation,
    c_int,
    run_metadata: *mut CBuffer,
    *mut CStatus,
);

type Load = unsafe extern "C" fn(
    *const CSessionOptions,
    run_options: *const CBuffer,
    folder: *const c_char,
    tags: *const *const c_char,
    c_int,
    *mut CGraph,
    meta_graph: *mut CBuffer,
    *mut CStatus,
) -> *mut CSession;

/// Functions, named as in C without `TF_`.
pub struct Api {
    version: unsafe extern "C" fn() -> *const c_char,
    pub new_status: unsafe extern "C" fn() -> *mut CStatus,
    pub delete_status: unsafe extern "C" fn(*mut CStatus),
    pub get_code: unsafe extern "C" fn(*const CStatus) -> c_int,
    pub message: unsafe extern "C" fn(*const CStatus) -> *const c_char,
    pub new_buffer_from_string: unsafe extern "C" fn(*const c_void, usize) -> *mut CBuffer,
    pub delete_buffer: unsafe extern "C" fn(*mut CBuffer),
    pub new_graph: unsafe extern "C" fn() -> *mut CGraph,
    pub delete_graph: unsafe extern "C" fn(*mut CGraph),
    pub new_import_options: unsafe extern "C" fn() -> *mut CImportOptions,
    pub delete_import_options: unsafe extern "C" fn(*mut CImportOptions),
    pub import_graph: unsafe extern "C" fn(*mut CGraph, *const CBuffer, *const CImportOptions, *mut CStatus),
    pub operation_by_name: unsafe extern "C" fn(*mut CGraph, *const c_char) -> *mut COperation,
    pub operation_outputs: unsafe extern "C" fn(*mut COperation) -> c_int,
    pub output_type: unsafe extern "C" fn(COutput) -> c_int,
    pub output_rank: unsafe extern "C" fn(*mut CGraph, COutput, *mut CStatus) -> c_int,
    pub output_shape: unsafe extern "C" fn(*mut CGraph, COutput, *mut i64, c_int, *mut CStatus),
    pub new_session_options: unsafe extern "C" fn() -> *mut CSessionOptions,
    pub delete_session_options: unsafe extern "C" fn(*mut CSessionOptions),
    pub set_config: unsafe extern "C" fn(*mut CSessionOptions, *const c_void, usize, *mut CStatus),
    pub new_session: unsafe extern "C" fn(*mut CGraph, *const CSessionOptions, *mut CStatus) -> *mut CSession,
    pub load_saved_model: Load,
    pub close_session: unsafe extern "C" fn(*mut CSession, *mut CStatus),
    pub delete_session: unsafe extern "C" fn(*mut CSession, *mut CStatus),
    pub session_run: Run,
    pub allocate_tensor: unsafe extern "C" fn(c_int, *const i64, c_int, usize) -> *mut CTensor,
    pub delete_tensor: unsafe extern "C" fn(*mut CTensor),
    pub tensor_type: unsafe extern "C" fn(*const CTensor) -> c_int,
    pub tensor_rank: unsafe extern "C" fn(*const CTensor) -> c_int,
    pub tensor_dimension: unsafe extern "C" fn(*const CTensor, c_int) -> i64,
    pub tensor_bytes: unsafe extern "C" fn(*const CTensor) -> usize,
    pub tensor_data: unsafe extern "C" fn(*const CTensor) -> *mut c_void,
    pub string_init: unsafe extern "C" fn(*mut CString24),
    pub string_copy: unsafe extern "C" fn(*mut CString24, *const c_char, usize),
    pub string_data: unsafe extern "C" fn(*const CString24) -> *const c_char,
    pub string_size: unsafe extern "C" fn(*const CString24) -> usize,
    pub string_dealloc: unsafe extern "C" fn(*mut CString24),
}

impl Api {
    /// Opens a library for good.
    pub fn open(path: &Path) -> Result<&'static Api, String> {
        // SAFETY: opening runs the library's initialisers; the operator names the file as TensorFlow's, and who may
        // place files where we look may also replace this program.
        let opened = unsafe { Library::new(path) };
        let library = opened.map_err(|error| format!("can't open `{}`: {error}", path.display()))?;
        // SAFETY: the types below are those of TensorFlow's headers `c_api.h`, `tf_tensor.h` and `tf_tstring.h`, which
        // have not changed since 2.4. The library is leaked, so the functions stay valid.
        let api = unsafe { Api::of(&library) };
        // What its initialisers began goes on even where it is of no use: it is never closed.
        std::mem::forget(library);
        let api = api.map_err(|error| {
            format!("`{}` is not TensorFlow 2.4 or newer with its C API: {error}", path.display())
        })?;
        Ok(Box::leak(Box::new(api)))
    }

    /// # Safety
    /// The library must be TensorFlow.
    unsafe fn of(library: &Library) -> Result<Api, libloading::Error> {
        // SAFETY: each field has the type of the C function of that name.
        unsafe {
            Ok(Api {
                version: function(library, c"TF_Version")?,
                new_status: function(library, c"TF_NewStatus")?,
                delete_status: function(library, c"TF_DeleteStatus")?,
                get_code: function(library, c"TF_GetCode")?,
                message: function(library, c"TF_Message")?,
                new_buffer_from_string: function(library, c"TF_NewBufferFromString")?,
                delete_buffer: function(library, c"TF_DeleteBuffer")?,
                new_graph: function(library, c"TF_NewGraph")?,
                delete_graph: function(library, c"TF_DeleteGraph")?,
                new_import_options: function(library, c"TF_NewImportGraphDefOptions")?,
                delete_import_options: function(library, c"TF_DeleteImportGraphDefOptions")?,
                import_graph: function(library, c"TF_GraphImportGraphDef")?,
                operation_by_name: function(library, c"TF_GraphOperationByName")?,
                operation_outputs: function(library, c"TF_OperationNumOutputs")?,
                output_type: function(library, c"TF_OperationOutputType")?,
                output_rank: function(library, c"TF_GraphGetTensorNumDims")?,
                output_shape: function(library, c"TF_GraphGetTensorShape")?,
                new_session_options: function(library, c"TF_NewSessionOptions")?,
                delete_session_options: function(library, c"TF_DeleteSessionOptions")?,
                set_config: function(library, c"TF_SetConfig")?,
                new_session: function(library, c"TF_NewSession")?,
                load_saved_model: function(library, c"TF_LoadSessionFromSavedModel")?,
                close_session: function(library, c"TF_CloseSession")?,
                delete_session: function(library, c"TF_DeleteSession")?,
                session_run: function(library, c"TF_SessionRun")?,
                allocate_tensor: function(library, c"TF_AllocateTensor")?,
                delete_tensor: function(library, c"TF_DeleteTensor")?,
                tensor_type: function(library, c"TF_TensorType")?,
                tensor_rank: function(library, c"TF_NumDims")?,
                tensor_dimension: function(library, c"TF_Dim")?,
                tensor_bytes: function(library, c"TF_TensorByteSize")?,
                tensor_data: function(library, c"TF_TensorData")?,
                string_init: function(library, c"TF_StringInit")?,
                string_copy: function(library, c"TF_StringCopy")?,
                string_data: function(library, c"TF_StringGetDataPointer")?,
                string_size: function(library, c"TF_StringGetSize")?,
                string_dealloc: function(library, c"TF_StringDealloc")?,
            })
        }
    }

    pub fn version(&self) -> String {
        // SAFETY: the function gives a static, zero-terminated text.
        unsafe { text((self.version)()) }
    }
}

/// # Safety
/// `F` must be the function type of that name's symbol.
unsafe fn function<F: Copy>(library: &Library, name: &CStr) -> Result<F, libloading::Error> {
    // SAFETY: as the caller promises.
    unsafe { library.get::<F>(name).map(|symbol| *symbol) }
}

/// A C text as ours.
///
/// # Safety
/// `text` must be null or zero-terminated.
pub unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and zero-terminated as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
