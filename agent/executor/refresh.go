package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// given is the value that a file has.
type given struct {
	// ID is that of the secret or config.
	ID      string `json:"id"`
	Version uint64 `json:"version"`
	// With is a hash of the versions of the values that a template may have in it. Their list would be in the record once for each template.
	With string `json:"with,omitempty"`
}

// givenBy returns what each file that is written again when its value changes has by now, by its path.
func givenBy(wanted []secretFile) map[string]given {
	var others []string
	for _, w := range wanted {
		if !w.template {
			others = append(others, fmt.Sprintf("%s:%d", w.id, w.version))
		}
	}
	all := fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(others, " "))))
	out := map[string]given{}
	for _, w := range wanted {
		if w.onChange == api.OnChange_ON_CHANGE_UNSPECIFIED {
			continue
		}
		g := given{ID: w.id, Version: w.version}
		if w.template {
			g.With = all
		}
		out[w.path] = g
	}
	return out
}

// give notes what the files of a container are made with, and returns their values.
func (e *Executor) give(id string, wanted []secretFile) ([]*api.ReceivedValue, error) {
	now := givenBy(wanted)
	if len(now) == 0 {
		return nil, nil
	}
	r, err := readRecord(e.dir(id))
	if err == nil {
		r.Given = now
		err = writeRecord(e.dir(id), r)
	}
	if err != nil {
		return nil, fmt.Errorf("note the secrets of container %s: %w", id, err)
	}
	return r.received(), nil
}

// received returns the values of the files, by ids.
func (r record) received() []*api.ReceivedValue {
	versions := map[string]uint64{}
	for _, g := range r.Given {
		if v, ok := versions[g.ID]; !ok || g.Version < v { // of two files, one may not be written yet
			versions[g.ID] = g.Version
		}
	}
	var out []*api.ReceivedValue
	for _, id := range slices.Sorted(maps.Keys(versions)) {
		out = append(out, &api.ReceivedValue{Id: id, Version: versions[id]})
	}
	return out
}

// Refresh writes the files again whose values changed, and sends the signals that the task names for that (E5).
func (e *Executor) Refresh(ctx context.Context, t *api.Task) ([]*api.ReceivedValue, error) {
	id := t.GetId()
	r, err := readRecord(e.dir(id))
	if err != nil {
		return nil, fmt.Errorf("rewrite secrets of container %s: %w", id, err)
	}
	if t, err = e.filledIn(t); err != nil {
		return nil, err
	}
	wanted, files, err := e.secrets(t)
	if fault.KindOf(err) == fault.Unavailable { // after a start of the daemon: they come
		return r.received(), nil
	}
	if err != nil {
		return nil, err
	}
	defer clearSecrets(files) // E3
	changed, err := e.rewrite(ctx, id, r.Given, wanted, files)
	if len(changed) == 0 {
		return r.received(), err
	}
	r.Given = maps.Clone(r.Given)
	maps.Copy(r.Given, changed)
	return r.received(), errors.Join(err, writeRecord(e.dir(id), r))
}

// rewrite writes the files whose values are not those that were given, and returns what was given to whom: to files that are written, and
// of which the process knows, if it is to know. The others are among the errors.
func (e *Executor) rewrite(ctx context.Context, id string, old map[string]given, wanted []secretFile, files []File) (map[string]given, error) {
	now, changed, signals := givenBy(wanted), map[string]given{}, map[unix.Signal][]string{}
	var errs []error
	for i, w := range wanted {
		// A file of which nothing is known is of a container that another version made.
		had, known := old[w.path]
		if g, ok := now[w.path]; !ok || !known || g == had {
			continue
		}
		var s unix.Signal
		var err error
		if w.onChange == api.OnChange_ON_CHANGE_SIGNAL {
			s, err = parseSignal(w.signal)
		}
		if err == nil {
			err = e.cfg.Runtime.Rewrite(ctx, id, files[i])
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s %s has no version %d in the container: %w", valueKind(w.config), w.name, w.version, err))
		case s != 0:
			signals[s] = append(signals[s], w.path)
		default:
			changed[w.path] = now[w.path]
		}
	}
	for _, s := range slices.Sorted(maps.Keys(signals)) {
		if err := e.cfg.Runtime.Kill(ctx, id, s); err != nil {
			errs = append(errs, fmt.Errorf("signal %v, which says that secrets changed: %w", s, err))
			continue
		}
		for _, path := range signals[s] {
			changed[path] = now[path]
		}
	}
	return changed, errors.Join(errs...)
}
