package executor

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/expand"
	"github.com/skep-io/skep/internal/fault"
)

// context is what the templates of a task may name.
func (e *Executor) context(t *api.Task) expand.Context {
	return expand.Context{
		Service: expand.Service{ID: t.GetServiceId(), Name: t.GetServiceName(), Labels: containerOf(t).GetServiceLabels()},
		Node: expand.Node{
			ID: e.cfg.NodeID, Hostname: e.cfg.Hostname, Platform: expand.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH},
		},
		Task: expand.Task{ID: t.GetId(), Name: taskName(t), Slot: strconv.FormatUint(t.GetSlot(), 10)},
	}
}

// taskName is SERVICE.SLOT.ID.
func taskName(t *api.Task) string {
	return fmt.Sprintf("%s.%d.%s", t.GetServiceName(), t.GetSlot(), t.GetId())
}

// filledIn returns a task whose variables, host name and volumes are no templates any more. It is t itself when there are none.
func (e *Executor) filledIn(t *api.Task) (*api.Task, error) {
	if len(templates(containerOf(t))) == 0 {
		return t, nil
	}
	out := proto.CloneOf(t)
	for _, text := range templates(containerOf(out)) {
		expanded, err := e.Expand(out, *text)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", fault.Clip(*text, maxQuoted), err)
		}
		if strings.ContainsRune(expanded, 0) {
			return nil, fault.New(fault.Invalid, "%q: template: it makes a zero byte", fault.Clip(*text, maxQuoted))
		}
		*text = expanded
	}
	return out, nil
}

// Expand fills in a template about a task, which may name neither secrets nor configs.
func (e *Executor) Expand(t *api.Task, text string) (string, error) {
	out, err := expand.Expand(text, e.context(t), expand.Values{})
	return string(out), err
}

// templates returns where a container has templates that the node fills in before anything else.
func templates(c *api.ContainerSpec) []*string {
	texts := []*string{&c.Hostname}
	for i := range c.GetEnv() {
		texts = append(texts, &c.Env[i])
	}
	for _, m := range c.GetMounts() {
		if m.GetType() == api.MountType_MOUNT_TYPE_VOLUME {
			texts = append(texts, &m.Source)
		}
	}
	return slices.DeleteFunc(texts, func(text *string) bool { return !expand.Templated(*text) })
}

// VolumesOf returns the names of the volumes that a task mounts, filled in. A task whose templates can't be filled in has none.
func (e *Executor) VolumesOf(t *api.Task) []string {
	filled, err := e.filledIn(t)
	if err != nil {
		return nil // it was rejected, or will be
	}
	var names []string
	for _, m := range containerOf(filled).GetMounts() {
		if m.GetType() == api.MountType_MOUNT_TYPE_VOLUME {
			names = append(names, m.GetSource())
		}
	}
	return names
}

// maxQuoted bounds how much of a template an error repeats.
const maxQuoted = 100

// expandFiles fills in those of a task's secrets and configs that are templates. wanted are in the order of files, and none is missing.
func (e *Executor) expandFiles(t *api.Task, wanted []secretFile, files []File) error {
	values := expand.Values{
		Secret: func(name string) (string, error) { return valueNamed(wanted, files, false, name) },
		Config: func(name string) (string, error) { return valueNamed(wanted, files, true, name) },
		Env:    func(name string) (string, error) { return variable(containerOf(t).GetEnv(), name), nil },
	}
	for i, w := range wanted {
		if !w.template {
			continue
		}
		old := files[i].Data // which no other one reads: it is a template
		expanded, err := expand.Expand(string(old), e.context(t), values)
		if err != nil {
			return fmt.Errorf("%s %s: %w", valueKind(w.config), w.name, err)
		}
		files[i].Data = expanded
		clear(old) // E3
	}
	return nil
}

// valueKind says what a reference is to.
func valueKind(config bool) string {
	if config {
		return "config"
	}
	return "secret"
}

// valueNamed returns the value that a task has under a target, as Swarm has it, or else under a name.
func valueNamed(wanted []secretFile, files []File, config bool, name string) (string, error) {
	found := -1
	for i, w := range wanted {
		switch {
		case w.config != config || name == "": // a reference without a target is not one with the target ""
		case w.named == name || config && w.named == path.Join("/", name):
			found = i
		case w.name == name && found < 0:
			found = i
		}
	}
	kind := valueKind(config)
	switch {
	case found < 0:
		return "", fault.New(fault.Invalid, "the service has no %s %s", kind, fault.Clip(name, maxQuoted))
	case wanted[found].template:
		return "", fault.New(fault.Invalid, "%s %s is a template itself", kind, fault.Clip(name, maxQuoted))
	default:
		return string(files[found].Data), nil
	}
}

// variable returns what a service sets a variable to, or "".
func variable(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if n, value, ok := strings.Cut(env[i], "="); ok && n == name {
			return value
		}
	}
	return ""
}
