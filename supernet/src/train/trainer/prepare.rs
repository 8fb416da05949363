//! The start of a run: from fresh weights, from given weights, or from its last checkpoint.

use std::sync::Arc;

use latency::LatencyTable;
use network::checkpoint::{Checkpoint, Interface, ValidationProgress};
use network::data::{Augmentation, Dataset};
use network::elastic::Gradients;
use space::SearchSpace;

use super::{TrainConfig, Trainer};
use crate::error::{Error, Result};
use crate::train::architecture::Logits;
use crate::train::controller::Pupil;
use crate::train::cost_axis::CostAxis;
use crate::train::draw::Draw;
use crate::train::exchange::{Alone, Exchange};
use crate::train::history::History;
use crate::train::plan::TrainingPlan;
use crate::train::recipe::{Phase, Recipe};
use crate::train::run_folder::RunFolder;
use crate::train::start::Start;
use crate::train::teacher::TeacherFile;
use crate::train::way_back::WayBack;

/// The space, images, recipe, first weights and teacher of a run.
pub struct TrainTask<'a> {
    /// The space of the supernet.
    pub space: SearchSpace,
    /// The images, preprocessed for the supernet ([`Start::see`]).
    pub dataset: Arc<Dataset>,
    /// The recipe, which is adapted to the start and the space.
    pub recipe: &'a Recipe,
    /// The first weights of the run.
    pub start: &'a Start,
    /// The teacher of phases with `teacher = "file"`.
    pub teacher: Option<TeacherFile>,
    /// The latency table of recipes that draw sub-networks by latency.
    pub latency_table: Option<Arc<LatencyTable>>,
}

impl<'a> TrainTask<'a> {
    /// A run from fresh weights, without a teacher file or a latency table.
    pub fn fresh(space: SearchSpace, dataset: Arc<Dataset>, recipe: &'a Recipe) -> Self {
        Self { space, dataset, recipe, start: &Start::Fresh, teacher: None, latency_table: None }
    }
}

/// The images of a run as its supernet sees them.
struct RunImages {
    dataset: Arc<Dataset>,
    interface: Interface,
    augmentation: Option<Augmentation>,
}

impl RunImages {
    /// The images, seen as a run that is resumed from `saved` saw them, else as suits the space.
    fn of(
        dataset: Arc<Dataset>,
        space: &SearchSpace,
        recipe: &Recipe,
        saved: Option<&Checkpoint>,
        folder: &RunFolder,
    ) -> Result<Self> {
        if saved.is_some_and(|saved| saved.supernet.interface.preprocess.is_none()) {
            // a run older than files with preprocessing continues as it began
            let dataset = Arc::new(dataset.seen_as(dataset.preprocess_unsaid(space)?)?);
            return Ok(Self { dataset, interface: Interface::default(), augmentation: None });
        }
        let dataset = with_channels_of(space, dataset)?;
        let begun = saved.and_then(|_| folder.planned());
        let augmentation = recipe.augmentation.as_begun(begun.as_ref());
        let augmentation = Some(Augmentation::for_dataset(&dataset, augmentation)?);
        let interface = Interface::of(&dataset);
        Ok(Self { dataset, interface, augmentation })
    }
}

impl Trainer {
    /// Prepares a run from fresh weights: as [`Trainer::of`] with [`Start::Fresh`].
    ///
    /// # Errors
    /// As [`Trainer::of`].
    pub fn new(
        space: SearchSpace,
        dataset: Arc<Dataset>,
        recipe: &Recipe,
        folder: RunFolder,
        config: TrainConfig,
    ) -> Result<Self> {
        Self::of(TrainTask::fresh(space, dataset, recipe), folder, config)
    }

    /// Prepares a run: from the folder's last checkpoint if there is one, else from its start. A run that has
    /// diverged goes back to the end of the previous phase. If the classes of the images differ from those of given
    /// weights, a fresh classifier is made and trained first, with all else frozen.
    ///
    /// # Errors
    /// If data, teacher and space do not fit, the space differs from given weights' in more than classes and resolutions, or the
    /// checkpoint is of another space, plan or data set.
    pub fn of(task: TrainTask, folder: RunFolder, config: TrainConfig) -> Result<Self> {
        let TrainTask { space, dataset, recipe, start, teacher, latency_table } = task;
        recipe.check_teacher_file(teacher.as_ref().map(TeacherFile::place))?;
        let space = start.space_for(Some(space), dataset.classes().len())?;
        let recipe = &start.recipe(recipe, &dataset);
        let first = start.weights(&space, &dataset, config.seed)?;
        check_fit(&space, &dataset, recipe)?;
        let steps_per_epoch = (dataset.train().len() / recipe.batch) as u64;
        let mut plan = TrainingPlan::new(&recipe.suited_to(&space), steps_per_epoch, config.seed);
        let cost = CostAxis::for_kind(plan.cost(), latency_table, &space)?;
        plan.latency_table = cost.table_hash();
        plan.start = first.from.as_ref().map(|from| from.weights.clone());
        let (saved, way_back) = WayBack::find(&folder)?;
        let RunImages { dataset, interface, augmentation } =
            RunImages::of(dataset, &space, recipe, saved.as_ref(), &folder)?;
        plan.augmentation = augmentation;
        let teacher_file = ready(teacher, &space, &dataset)?;
        plan.teacher = teacher_file.as_ref().map(|teacher| teacher.hash().to_string());
        plan.class_weights =
            recipe.class_weights.as_ref().map(|weights| weights.weights(&dataset)).transpose()?;
        let weights = first.weights.on(&config.backend)?;
        let teacher_file = teacher_file.map(|teacher| teacher.on(&config.backend)).transpose()?;
        let optimizer = plan.optimizer.at_rest(weights.arena(), plan.weight_decay, &config.backend)?;
        let gradients = Gradients::new(&weights)?;
        let data = saved.as_ref().map_or_else(|| dataset.identity(), |saved| saved.training.data.clone());
        let mut trainer = Self {
            logits: None,
            pupil: None,
            space,
            validation_set: validation_set(&plan, &dataset),
            dataset,
            validated: plan.validation.map(|_| ValidationProgress::default()),
            saved_best: None,
            history: History::new(&plan),
            plan,
            config,
            interface,
            data,
            started: first.from,
            exchange: Box::new(Alone),
            folder,
            weights,
            gradients,
            optimizer,
            average: None,
            teacher: None,
            teacher_file,
            cost,
            step: 0,
            resumed: None,
            went_back: None,
            saved: None,
            keeps_checkpoints: false,
            conflicts_every: None,
        };
        trainer.average = trainer.fresh_average()?;
        trainer.begin_to_draw()?;
        trainer.resume(saved, way_back)?;
        Ok(trainer)
    }

    /// Makes what learns to draw sub-networks, if the plan has it.
    fn begin_to_draw(&mut self) -> Result<()> {
        let Self { plan, space, config, .. } = self;
        plan.phases.iter().try_for_each(|phase| check_allows_all(space, &phase.phase))?;
        self.pupil = plan.controller.map(|recipe| Pupil::new(recipe, space, config.seed));
        let logits = plan.architecture.map(|recipe| Logits::new(recipe, space, config.seed));
        self.logits = logits.transpose()?;
        Ok(())
    }

    /// Restores the checkpoint if there is one, goes back after a divergence, and prepares the log.
    fn resume(&mut self, saved: Option<Checkpoint>, way_back: Option<WayBack>) -> Result<()> {
        if let Some(saved) = saved {
            self.restore(saved)?;
        } else if self.folder.supernet().exists() {
            return Err(base::Error::Occupied {
                path: self.folder.supernet(),
                reason: "it is there, but the checkpoint that it came from is not".to_string(),
                next: "put checkpoint.safetensors back, or choose another folder".to_string(),
            }
            .into());
        }
        if let Some(way_back) = way_back {
            way_back.go(&mut self.folder)?;
            self.went_back = Some(way_back.in_words(&self.plan, self.step));
        }
        self.begin_log()
    }

    /// Keeps the checkpoint at the end of each phase permanently, in the folder `checkpoints`.
    #[must_use]
    pub fn keeping_checkpoints(self) -> Self {
        Self { keeps_checkpoints: true, ..self }
    }

    /// Makes the trainer one of several processes that train together.
    #[must_use]
    pub fn exchanging(self, exchange: impl Exchange + Send + 'static) -> Self {
        Self { exchange: Box::new(exchange), ..self }
    }

    /// Cuts the log back to the checkpoint, and notes which evaluations it has; without a checkpoint empties the log.
    fn begin_log(&mut self) -> Result<()> {
        let Some(resumed) = &mut self.resumed else { return self.folder.empty_log() };
        let happened = self.folder.cut_log(self.step)?;
        resumed.happened = happened.into_iter().filter(|line| line.steps_taken() == self.step).collect();
        let evaluated = resumed.happened.iter().cloned().filter_map(|line| line.evaluated_at(self.step));
        resumed.evaluated = evaluated.collect();
        Ok(())
    }
}

/// The images of validations within a phase.
fn validation_set(plan: &TrainingPlan, dataset: &Arc<Dataset>) -> Arc<Dataset> {
    let images = plan.validation.and_then(|validation| validation.settings.images);
    images.map_or_else(|| dataset.clone(), |images| Arc::new(dataset.with_val_images(images)))
}

/// Refuses a phase in which what learns draws and not all choices are allowed: it draws among all.
fn check_allows_all(space: &SearchSpace, phase: &Phase) -> Result<()> {
    let learns = Draw::by_controller(&phase.draw) || Draw::by_architecture(&phase.draw);
    if !learns || phase.allowed.of(space).genome() == space.genome() {
        return Ok(());
    }
    let field = format!("{}.allowed", phase.name);
    let expected = format!("all choices of space {}, among which it draws", space.name());
    let advice =
        "allow all: `allowed = { operator = 9, connection = 9 }`, say, as in `supernet recipe enas --toml`";
    Err(Error::invalid("recipe", field, expected, "some of them").and_then_do(advice))
}

/// The teacher, after a check that it fits.
fn ready(
    teacher: Option<TeacherFile>,
    space: &SearchSpace,
    dataset: &Dataset,
) -> Result<Option<TeacherFile>> {
    if let Some(teacher) = &teacher {
        teacher.check_fits(space)?;
        teacher.check_sees(dataset)?;
    }
    Ok(teacher)
}

/// The data set as it is, or preprocessed for the space if its channels differ from the space's.
fn with_channels_of(space: &SearchSpace, dataset: Arc<Dataset>) -> Result<Arc<Dataset>> {
    if dataset.channels() == space.input_channels() {
        return Ok(dataset);
    }
    Ok(Arc::new(dataset.seen_as(dataset.preprocess_for(space)?)?))
}

/// Checks that the data fit the space, and fill a batch.
fn check_fit(space: &SearchSpace, dataset: &Dataset, recipe: &Recipe) -> Result<()> {
    dataset.check_fits(space)?;
    let images = dataset.train().len();
    if images < recipe.batch {
        let place = format!("data {}", dataset.name());
        let expected = format!("at least a batch of {}", recipe.batch);
        return Err(
            Error::invalid(place, "training images", expected, images).and_then_do("take a smaller batch")
        );
    }
    Ok(())
}
