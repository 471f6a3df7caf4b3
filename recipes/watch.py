"""Watch a camera or a video: the value of each frame as it comes, and whether the task is done.

    python recipes/watch.py value.path=value.safetensors watch.source=0 \\
        watch.instruction="open the drawer"
    python recipes/watch.py value.path=value.safetensors watch.source=film.mp4 ...
    python recipes/watch.py value.path=value.safetensors watch.source=rtsp://camera/stream ...

Prints a line per second, and one where "done" changes. At the end of the video, or after Ctrl-C,
says how many frames there were, frames per second, and the latency. Writes nothing.
"""

from __future__ import annotations

from rftf_torchrl import RunConfig, ValueWatch, recipe, resolve_device, stream_frames
from rftf_torchrl.configs.artefacts import load_value_model, shown_as_trained


def watch(config: RunConfig) -> dict[str, float]:
    """Watch until the end; returns the speed, as :meth:`ValueWatch.speed` says it.

    Raises:
        ValueError: where the source or the instruction is missing, or there is no frame.
    """
    settings = config.watch
    if settings.source is None or settings.instruction is None:
        raise ValueError(
            "there is nothing to watch: give watch.source=<number of a camera, URL or file> and "
            'watch.instruction="<instruction>"'
        )
    model = load_value_model(config).to(resolve_device(config.device))
    watched = ValueWatch(
        model,
        settings.instruction,
        done_above=settings.done_above,
        undone_below=settings.undone_below,
        hold=settings.hold,
        **shown_as_trained(config, model),
    )
    said, was_done = -1, False
    try:
        for time, frame in stream_frames(settings.source, timeout=settings.timeout):
            value, done, latency = watched(frame)
            if int(time) > said or done != was_done:
                word = "done" if done else "not done"
                line = f"{time:7.1f} s  value {value:6.3f}  {word:8}  {1000 * latency:6.1f} ms"
                print(line, flush=True)
            said, was_done = max(said, int(time)), done
    except KeyboardInterrupt:
        print("stopped")
    speed = watched.speed()
    print(
        f"{speed['frames']} frames, {speed['frames_per_second']:.1f} a second; latency: median "
        f"{1000 * speed['median_latency']:.1f} ms, 95% below {1000 * speed['latency_95']:.1f} ms"
    )
    return speed


@recipe()
def main(config: RunConfig) -> None:
    watch(config)


if __name__ == "__main__":
    main()
