internal import WorkerProgram
internal import WorkerRuntime

runWorker(.current)
