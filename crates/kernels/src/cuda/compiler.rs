//! Compiles CUDA C to a GPU's own code, by NVRTC.
//!
//! Code and not PTX: a driver refuses PTX of a newer NVRTC, but not code of the same major version, and nothing is left to
//! compile at a kernel's first launch.

use std::ffi::{CStr, CString};

use candle_core::cuda_backend::cudarc::nvrtc::{Ptx, result, sys};
use candle_core::{Result, bail};

use super::{ActivationStorage, COMMON};

/// NVRTC's version, such as `(13, 0)`.
pub fn version() -> Result<(i32, i32)> {
    let mut major = 0;
    let mut minor = 0;
    // SAFETY: both are written before the call returns.
    match unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result() {
        Ok(()) => Ok((major, minor)),
        Err(error) => bail!("NVRTC: {error}"),
    }
}

/// A source of kernels for activations kept like this, compiled for an architecture such as `sm_90`.
pub fn compile(name: &str, text: &str, storage: ActivationStorage, architecture: &str) -> Result<Ptx> {
    let failed = |error: result::NvrtcError, log: &str| {
        candle_core::Error::msg(format!("{name}.cu does not compile for {architecture}: {error}{log}"))
    };
    let whole =
        CString::new(text.replace("#include \"common.cuh\"", COMMON)).map_err(candle_core::Error::wrap)?;
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_string()];
    if storage == ActivationStorage::Bf16 {
        options.push("--define-macro=BF16".to_string());
    }
    let program = Program(result::create_program(&whole, None).map_err(|error| failed(error, ""))?);
    // SAFETY: the program is there until it is dropped.
    unsafe { result::compile_program(program.0, &options) }
        .map_err(|error| failed(error, &format!("\n{}", program.log())))?;
    let code = program.code().map_err(|error| failed(error, ""))?;
    Ok(Ptx::from_binary(code))
}

/// A text that NVRTC has.
struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program is there until it is dropped.
        match unsafe { result::get_program_log(self.0) } {
            // SAFETY: the log ends with a 0.
            Ok(log) if !log.is_empty() => {
                unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned()
            }
            _ => String::new(),
        }
    }

    fn code(&self) -> std::result::Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program is there and compiled; the buffer has the size that NVRTC gives.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &raw mut size).result()?;
            let mut code = vec![0u8; size];
            sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()).result()?;
            Ok(code)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // nothing depends on it any more
        // SAFETY: made by `create_program`, and taken down once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
