"""Run one container inside a Slurm job and leave a completion record. Standard library only, Python 3.6 or newer.

This package is copied into every job's directory and executed there, outside the container, by
`python3 -E -s -S -c 'from byoc_in_job.__main__ import main; main()'`:

    byoc_job.json        what to run (read)
    byoc_fence/          made first; a second copy of the job finds it and leaves without a trace;
                         its file `owner` holds the Slurm id of the job that made it
    byoc_tasks/          how each task of a parallel job ended
    byoc_runtime/        what the runtime needs for itself, closed to others
    byoc_begun           empty, made when everything is there for the program to begin
    work/                the container's only window to the disk
    inputs/              what is mounted into it, read-only
    outputs/             declared outputs, moved here and measured: the container cannot reach them any more
    in_place/            those of them that are too large to be taken elsewhere
    byoc_record.json     the completion record, written last, by atomic rename
    byoc_array/          instead of all of these from byoc_begun on, the tasks of an array (array.py)
    byoc_none_left/      by Slurm id, the jobs of which no process is left: the Epilog need not look for any

and, above the directories of all jobs,

    byoc_news/           hints for the node (news.py)

Exit status: the container's, 125 when its program did not start, 69 (EX_UNAVAILABLE) when the runtime cannot be used on
this compute node, 75 (EX_TEMPFAIL) when the fence was already taken.
"""

PROGRAM = "byoc_in_job"
"""What this package is called in a job's directory."""
START = ("-E", "-s", "-S", "-c", "from {}.__main__ import main; main()".format(PROGRAM))
"""What Python is told: neither the site's packages nor the user's belong to it, and `-m` would take 6 ms more."""

SPECIFICATION = "byoc_job.json"
RECORD = "byoc_record.json"
FENCE = "byoc_fence"
OWNER = "owner"
BEGUN = "byoc_begun"
RUNTIME = "byoc_runtime"
TASKS = "byoc_tasks"
NONE_LEFT = "byoc_none_left"
ARRAY = "byoc_array"
WORK = "work"
INPUTS = "inputs"
PROGRESS = ".byoc/progress.jsonl"
"""Below `work/`: where the container may report its progress."""
NEWS = "../../../byoc_news"
"""AiiDA makes a job's directory three levels below the computer's work directory."""
OUTPUTS = "outputs"
IN_PLACE = "in_place"
ARRAY_TASKS = ARRAY + "/tasks.jsonl"
"""What an array is to run: a line for each task, `[number, id, [values]]`."""
ARRAY_STARTS = ARRAY + "/starts"
"""Where in it each element begins to read: bytes, as a line of `START_WIDTH`."""
START_WIDTH = 16
ARRAY_COUNT = ARRAY + "/count"
"""How many elements the Slurm array has."""
CANCELLED = ARRAY + "/cancelled"
"""Numbers of tasks that are not to be run any more, `[[first, last], …]`, both included; the node puts it there."""
REPORTER = ARRAY + "/reporter"
"""Who holds its lock reports for all elements; when it was written last, that was done."""
ELEMENTS = ARRAY + "/elements"
RESULTS = "results.jsonl"
"""In the directory of an element: what became of it and of its tasks, a line each, only ever appended to."""
MESSAGE = 500
"""Characters of a progress report's message; the node reads none that has more (contracts/progress.py)."""
TASK_RECORD = "record.json"
"""In the directory of a task."""
GATHERED = ARRAY + "/results.jsonl"
"""The same of all elements, when the array has ended; the node has it made."""
DONE = "done"
"""In the directory of an element: how many of its tasks have ended so far, and how."""
MOST_NAMED = 10
"""So many of the tasks that failed of late are named."""
ENDED = "ended"
"""What the results of an element are called when all are written."""
NOT_STARTED = 125
UNUSABLE = 69
FENCED = 75
