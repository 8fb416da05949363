//! Training: progressive shrinking (recipe, plan, loss, optimizer, trainer, run folder), and the fine-tuning of one
//! exported network with the same parts.

mod architecture;
mod average;
mod class_weights;
mod conflict;
mod controller;
mod cost_axis;
mod draw;
mod events;
mod exchange;
mod finetune;
mod history;
mod log_file;
mod loss;
mod memory;
mod observer;
mod optimizer;
mod plan;
mod policy_state;
mod prefetcher;
mod recipe;
mod record;
mod resumed;
mod run_folder;
mod start;
mod step;
mod steps;
mod teacher;
#[cfg(test)]
mod testing;
mod trainer;
mod validation;
mod way_back;

pub use architecture::{ArchitectureRecipe, ArchitectureRule};
pub use class_weights::{ClassWeights, WeightRule};
pub use conflict::{ConflictRecord, StageCosine};
pub use controller::{ControllerRecipe, RewardCost};
pub use cost_axis::{CostAxis, CostKind};
pub use draw::{Attentive, Candidates, Draw, Keep};
pub use exchange::{Alone, Exchange};
pub use finetune::{
    FineTuneCheckpoint, FineTunePlan, FineTuneSettings, FineTuneTask, FineTuner, StaticNetwork,
    open_fine_tune_folder,
};
pub use loss::{Loss, Target, loss};
pub use memory::{MemoryEstimate, SpaceTraining, readable};
pub use observer::{Observer, OnPhase};
pub use optimizer::{AdamW, Nesterov, Optimizer, OptimizerSettings};
pub use plan::{PlannedPhase, TrainingPlan};
pub(crate) use prefetcher::Prefetcher;
pub use recipe::{Allowed, BuiltIn, Phase, Recipe};
pub use record::{
    ArchitectureRecord, ControllerRecord, DerivedRecord, Divergence, EarlyEnd, LogLine, StepRecord,
    SubnetValidation, ValidationRecord,
};
pub use resumed::Resumed;
pub use run_folder::RunFolder;
pub use start::{Given, Start};
pub use step::{Student, dropout_mask};
pub use teacher::{Distillation, Dropout, Teacher, TeacherFile};
pub use trainer::{PhaseTrial, RunOutcome, TrainConfig, TrainTask, Trainer, train};
pub use validation::{PlannedValidation, Validated, ValidationSettings};
