package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/logselect"
	"github.com/skep-io/skep/runtime/logfile"
)

// MaxTasks is the most tasks of one request: each costs a few open files.
const MaxTasks = 1024

// sayEvery is how long a manager hears nothing while lines are looked for, far less than what it waits; and lookEvery in how many lines
// the time is looked at.
const (
	sayEvery  = 2 * time.Second
	lookEvery = 256
)

// Reader reads the logs of this node's tasks.
type Reader struct {
	// Path returns where the log of a task is; never nil.
	Path func(id string) (string, error)
	// Prepared returns a channel that is closed once the log can be there, or never will be; never nil.
	Prepared func(id string) <-chan struct{}
	// Ended returns a channel that is closed once the task writes no more; never nil.
	Ended func(id string) <-chan struct{}
	// Watcher sees what is written, for all that is followed; never nil.
	Watcher *logfile.Watcher
}

// Read sends the lines of tasks until they end, or ctx does; and now and then nil, while it looks for lines that are wanted. Tasks without a log on this node are passed over, unless none is
// left; when following, those that are being prepared are waited for. It calls send from one goroutine at a time; when send fails, Read returns its error.
func (r Reader) Read(ctx context.Context, ids []string, o *api.LogOptions, send func(*api.LogLine) error) error {
	if len(ids) > MaxTasks {
		return fault.New(fault.Invalid, "logs of %d tasks of one node at once: the most is %d", len(ids), MaxTasks)
	}
	wanted, err := logselect.New(o)
	if err != nil {
		return err
	}
	paths, err := r.paths(ids, o.GetFollow())
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	lines := make(chan *api.LogLine)
	readers, readCtx := errgroup.WithContext(ctx)
	for id, path := range paths {
		readers.Go(func() error { return r.readOne(readCtx, id, path, o, wanted, lines) })
	}
	group.Go(func() error {
		defer close(lines)
		return readers.Wait()
	})
	group.Go(func() error {
		for l := range lines {
			if err := send(l); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// paths returns the logs that exist, and those that may come.
func (r Reader) paths(ids []string, follow bool) (map[string]string, error) {
	out := map[string]string{}
	for _, id := range ids {
		path, err := r.Path(id)
		if err != nil {
			return nil, err
		}
		here, err := exists(path)
		if err != nil {
			return nil, fmt.Errorf("read log of task %s: %w", id, err)
		}
		if here || follow && !closed(r.Prepared(id)) {
			out[id] = path
		}
	}
	if len(out) == 0 && len(ids) > 0 {
		return nil, fault.New(fault.NotFound, "no log of task %s is on this node: it was not started here, or was removed", ids[0])
	}
	return out, nil
}

// exists says whether there is a place for a log. The log itself comes with the first line.
func exists(path string) (bool, error) {
	_, err := os.Stat(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// readOne passes on the lines of one task.
func (r Reader) readOne(ctx context.Context, id, path string, o *api.LogOptions, wanted logselect.Selection, lines chan<- *api.LogLine) error {
	if o.GetFollow() {
		select {
		case <-r.Prepared(id):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	options, leaveOut := r.options(id, o), 0
	if wanted.Narrows() && options.Tail > 0 { // the last lines are counted among those that are wanted
		n, err := r.count(ctx, id, path, options.Since, wanted, lines)
		if err != nil {
			return err
		}
		options.Tail, leaveOut = 0, max(n-options.Tail, 0)
	}
	missed := uint64(0)
	err := r.each(ctx, id, path, options, lines, func(e logfile.Entry) error {
		missed += e.Missed
		switch {
		case !wanted.Has(e.Time, e.Text):
			return nil
		case leaveOut > 0:
			leaveOut, missed = leaveOut-1, 0
			return nil
		}
		l := line(id, e)
		l.Missed, missed = missed, 0
		return pass(ctx, lines, l)
	})
	if err != nil || missed == 0 {
		return err
	}
	return pass(ctx, lines, &api.LogLine{TaskId: id, Missed: missed})
}

// pass gives a line, or nil, to who sends them.
func pass(ctx context.Context, lines chan<- *api.LogLine, l *api.LogLine) error {
	select {
	case lines <- l:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// count returns how many lines that are there already are wanted.
func (r Reader) count(ctx context.Context, id, path string, since time.Time, wanted logselect.Selection, lines chan<- *api.LogLine) (n int, err error) {
	err = r.each(ctx, id, path, logfile.Options{Since: since}, lines, func(e logfile.Entry) error {
		if wanted.Has(e.Time, e.Text) {
			n++
		}
		return nil
	})
	return n, err
}

// each calls fn with each line of a task, and says that it goes on when it has been at that for a while.
func (r Reader) each(ctx context.Context, id, path string, options logfile.Options, lines chan<- *api.LogLine, fn func(logfile.Entry) error) error {
	reader, err := logfile.NewReader(path, options)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was never started, or was removed
	}
	if err != nil {
		return fmt.Errorf("read log of task %s: %w", id, err)
	}
	defer reader.Close()
	said := time.Now()
	for n := 1; ; n++ {
		e, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log of task %s: %w", id, err)
		}
		if err := fn(e); err != nil {
			return err
		}
		if n%lookEvery == 0 && time.Since(said) > sayEvery {
			said = time.Now()
			if err := pass(ctx, lines, nil); err != nil {
				return err
			}
		}
	}
}

func (r Reader) options(id string, o *api.LogOptions) logfile.Options {
	out := logfile.Options{Follow: o.GetFollow(), Watcher: r.Watcher, Done: r.Ended(id)}
	switch tail := o.GetTail(); {
	case tail < 0: // all, which is 0 to logfile
	case tail == 0:
		out.Tail = -1
	default:
		out.Tail = int(min(tail, 1<<30))
	}
	if s := o.GetSince(); s != nil {
		out.Since = s.AsTime()
	}
	return out
}

func line(id string, e logfile.Entry) *api.LogLine {
	stream := api.LogStream_LOG_STREAM_STDOUT
	if e.Stream == logfile.Stderr {
		stream = api.LogStream_LOG_STREAM_STDERR
	}
	return &api.LogLine{TaskId: id, Time: timestamppb.New(e.Time), Stream: stream, Data: e.Text}
}
