pub use crate::kernels::activation::Activation;
