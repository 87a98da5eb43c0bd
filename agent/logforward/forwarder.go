package logforward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/runtime/logfile"
)

const (
	// saveEvery is how often the position is written while lines are sent.
	saveEvery = time.Second
	// firstDelay and maxDelay are between tries to reach a server.
	firstDelay = time.Second
	maxDelay   = 10 * time.Second
	// tellEvery is how often the daemon's log says one thing of a task, as that its server can't be reached: one of UDP refuses every other line.
	tellEvery = time.Minute
)

// Config is what a Forwarder needs.
type Config struct {
	// Path returns where the log of a task is; never nil.
	Path func(id string) (string, error)
	// Ended returns a channel that is closed once the task writes no more; never nil.
	Ended func(id string) <-chan struct{}
	// Expand fills in a template of a task; never nil.
	Expand func(t *api.Task, text string) (string, error)
	// Watcher sees what is written; never nil.
	Watcher *logfile.Watcher
	// Hostname is the node's.
	Hostname string
	// Journal is the socket of journald; empty is systemd's.
	Journal string
	// Logger is used for what an administrator must know; nil is silence.
	Logger *slog.Logger
}

// Forwarder sends on what tasks write. Make one with New.
type Forwarder struct {
	// constant after New
	cfg Config
	log *slog.Logger
	// wake has room for one signal: there are new tasks.
	wake chan struct{}

	sent, lost atomic.Uint64
	lines      *prometheus.Desc
	lostLines  *prometheus.Desc

	mu sync.Mutex
	// The fields below are guarded by mu.

	// waiting are the tasks that Run has not begun with, and following those that are known, by id.
	waiting   []*api.Task
	following map[string]bool
}

// New returns a Forwarder that does nothing before Run.
func New(cfg Config) *Forwarder {
	if cfg.Journal == "" {
		cfg.Journal = "/run/systemd/journal/socket"
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Forwarder{
		cfg: cfg, log: log, wake: make(chan struct{}, 1), following: map[string]bool{},
		lines:     prometheus.NewDesc("skep_node_log_lines_sent_total", "Lines of tasks that were sent to syslog or the journal.", nil, nil),
		lostLines: prometheus.NewDesc("skep_node_log_lines_lost_total", "Lines of tasks that were removed before they could be sent, or that no message could hold.", nil, nil),
	}
}

// Follow begins to send on what a task writes, if its log driver says so. It may be called again for the same task, and never blocks.
func (f *Forwarder) Follow(t *api.Task) {
	d, err := logdriver.Parse(t.GetSpec().GetLogDriver())
	if err != nil || d.Destination() == "" {
		return // the executor refuses a driver that is not valid
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.following[t.GetId()] {
		return
	}
	f.following[t.GetId()] = true
	f.waiting = append(f.waiting, t)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, and then returns nil.
func (f *Forwarder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case <-f.wake:
			case <-ctx.Done():
				return nil
			}
			f.mu.Lock()
			tasks := f.waiting
			f.waiting = nil
			f.mu.Unlock()
			for _, t := range tasks {
				g.Go(func() error {
					f.follow(ctx, t)
					return nil
				})
			}
		}
	})
	return g.Wait()
}

// follow sends on what one task writes until it has ended, or ctx does.
func (f *Forwarder) follow(ctx context.Context, t *api.Task) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.following, t.GetId())
	}()
	path, err := f.cfg.Path(t.GetId())
	if err == nil {
		err = f.followFile(ctx, t, path)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Error("lines of a task are not sent on", "task", t.GetId(), "error", err)
	}
}

// followFile sends on what is written to the log at path. What the node is short of is there again later: then it goes on where it was (F5).
func (f *Forwarder) followFile(ctx context.Context, t *api.Task, path string) error {
	to, err := f.newSink(t)
	if err != nil {
		return err
	}
	defer to.close()
	s := &stream{f: f, task: t.GetId(), path: path, ended: f.cfg.Ended(t.GetId()), to: &to, told: map[string]time.Time{}}
	for delay := firstDelay; ; delay = min(2*delay, maxDelay) {
		before := s.sent()
		err := s.forward(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if s.sent() > before {
			delay = firstDelay
		}
		s.warn(ctx, "lines of a task wait in its files: they can't be read", err)
		if err := s.pause(ctx, delay); err != nil {
			return err
		}
	}
}

// stream is the way of one task's lines.
type stream struct {
	f     *Forwarder
	task  string
	path  string // of the log
	ended <-chan struct{}
	to    *sink
	// position is how far the log was sent, or nil: not read yet.
	position *position
	lost     uint64               // lines that were lost since the last that was sent
	told     map[string]time.Time // when the daemon's log said something last
	passed   bool                 // an entry without a number was passed over
}

// sent is the number of the last entry that was sent.
func (s *stream) sent() uint64 {
	if s.position == nil {
		return 0
	}
	return s.position.Seq
}

// forward sends what comes after the position until the task has ended and all is sent (nil), or something fails. It may be called again.
func (s *stream) forward(ctx context.Context) error {
	if s.position == nil {
		p, err := openPosition(s.path)
		if err != nil {
			return err
		}
		s.position = p
	}
	p := s.position
	r, err := logfile.NewReader(s.path, logfile.Options{Follow: true, Watcher: s.f.cfg.Watcher, Done: s.ended, After: p.Seq})
	if err != nil {
		return err
	}
	defer r.Close()
	defer func() { s.saved(ctx, p.save()) }()
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Seq == 0 {
			s.passOver()
			continue
		}
		if e.Seq > p.Seq+1 {
			s.lose(e.Seq - p.Seq - 1)
		}
		if err := s.send(ctx, e); err != nil {
			return err
		}
		p.Seq = e.Seq
		s.saved(ctx, p.saveNow(time.Now()))
	}
}

// passOver tells of an entry that is not sent, as no position can be behind it: all of them were sent again after each restart.
func (s *stream) passOver() {
	if !s.passed {
		s.passed = true
		s.f.log.Warn("lines of a task that have no numbers are not sent on: an older version wrote them, and those of a new container are sent", "task", s.task)
	}
}

// saved tells that the position could not be saved. It is tried again with later lines, which are sent all the same.
func (s *stream) saved(ctx context.Context, err error) {
	if err != nil {
		s.warn(ctx, "lines of a task are sent again after a restart of the daemon", err)
	}
}

// warn says something in the daemon's log, unless that was done a short while ago, or the daemon ends.
func (s *stream) warn(ctx context.Context, text string, err error) {
	if time.Since(s.told[text]) < tellEvery || ctx.Err() != nil {
		return
	}
	s.told[text] = time.Now()
	s.f.log.Warn(text, "task", s.task, "error", err)
}

// pause waits. It returns an error when ctx ended, or when the files of the task were removed.
func (s *stream) pause(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := os.Stat(filepath.Dir(s.path)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the log was removed before all of it was sent: %w", err)
	}
	return nil
}

// lose counts lines that can't be sent (F2).
func (s *stream) lose(n uint64) {
	s.lost += n
	s.f.lost.Add(n)
}

// send sends an entry, however long it takes to reach the server, or until ctx ends or the task's files are removed.
func (s *stream) send(ctx context.Context, e logfile.Entry) error {
	if s.lost > 0 {
		told := logfile.Entry{Time: e.Time, Stream: logfile.Stderr, Text: fmt.Appendf(nil, "skep: %d log lines lost\n", s.lost)}
		if err := s.retry(ctx, told); err == nil {
			s.lost = 0
		} else if !errors.Is(err, errTooLong) { // then it is told before a later line
			return err
		}
	}
	if err := s.retry(ctx, e); errors.Is(err, errTooLong) {
		s.lose(1)
	} else if err != nil {
		return err
	} else {
		s.f.sent.Add(1)
	}
	return nil
}

func (s *stream) retry(ctx context.Context, e logfile.Entry) error {
	for delay := firstDelay; ; delay = min(2*delay, maxDelay) {
		err := s.to.send(ctx, e)
		if err == nil || errors.Is(err, errTooLong) {
			return err
		}
		s.warn(ctx, "lines of a task wait in its files: they can't be sent on", err)
		if err := s.pause(ctx, delay); err != nil {
			if ctx.Err() == nil {
				s.lose(1)
			}
			return err
		}
	}
}

// Describe implements prometheus.Collector.
func (f *Forwarder) Describe(ch chan<- *prometheus.Desc) {
	ch <- f.lines
	ch <- f.lostLines
}

// Collect implements prometheus.Collector.
func (f *Forwarder) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(f.lines, prometheus.CounterValue, float64(f.sent.Load()))
	ch <- prometheus.MustNewConstMetric(f.lostLines, prometheus.CounterValue, float64(f.lost.Load()))
}
