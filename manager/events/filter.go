package events

import (
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/object"
)

// Limits of a request.
const (
	maxFilters = 32
	maxValues  = 256
)

// scope is Docker's word for all events of a swarm.
const scope = "swarm"

// condition says whether an event has a value.
type condition func(e *entry, value string) bool

// conditions are what events can be filtered by, in Docker's words. A label is also found among an event's attributes, as in Docker.
func conditions() map[string]condition {
	return map[string]condition{
		"type":    func(e *entry, value string) bool { return strings.EqualFold(e.kind, value) },
		"scope":   func(_ *entry, value string) bool { return value == scope },
		"event":   func(e *entry, value string) bool { return hasAction(e, value) },
		"label":   hasLabel,
		"service": func(e *entry, value string) bool { return means(value, e.serviceID, e.serviceName) },
		"node":    func(e *entry, value string) bool { return means(value, e.nodeID, e.nodeName) },
		"task":    func(e *entry, value string) bool { return of(e, object.KindTask) && means(value, e.id, e.name) },
		"secret":  func(e *entry, value string) bool { return of(e, object.KindSecret) && means(value, e.id, e.name) },
		"config":  func(e *entry, value string) bool { return of(e, object.KindConfig) && means(value, e.id, e.name) },
	}
}

func of(e *entry, kind object.Kind) bool { return e.kind == kind.String() }

// means reports whether a value is a name, or the beginning of an id.
func means(value, id, name string) bool {
	return id != "" && value != "" && (value == name || strings.HasPrefix(id, value))
}

// hasAction also knows an action by its first part: health_status for health_status: healthy.
func hasAction(e *entry, value string) bool {
	first, _, _ := strings.Cut(e.action, ":")
	return value == e.action || value == first
}

// hasLabel reads KEY or KEY=VALUE.
func hasLabel(e *entry, value string) bool {
	key, want, valued := strings.Cut(value, "=")
	got, ok := e.labels[key]
	if !ok {
		i := slices.IndexFunc(e.attributes, func(a attribute) bool { return a.key == key })
		if i < 0 {
			return false
		}
		got = e.attributes[i].value
	}
	return !valued || got == want
}

// filter lets some events pass. The zero value lets all.
type filter struct{ parts []part }

// part is one condition: of its values one must hold, or all.
type part struct {
	key    string
	holds  condition
	values []string
	all    bool
}

func newFilter(filters []*api.EventFilter) (filter, error) {
	if len(filters) > maxFilters {
		return filter{}, fault.New(fault.Invalid, "filters: %d are too many: at most %d are allowed", len(filters), maxFilters)
	}
	known := conditions()
	var f filter
	for _, given := range filters {
		holds := known[given.GetKey()]
		if holds == nil {
			return filter{}, fault.New(fault.Invalid, "filters: events can't be filtered by %q, but by type, event, service, task, node, secret, config, label and scope",
				fault.Clip(given.GetKey(), maxCursor))
		}
		if n := len(given.GetValues()); n == 0 || n > maxValues {
			return filter{}, fault.New(fault.Invalid, "filters: %s has %d values: 1 to %d are allowed", given.GetKey(), n, maxValues)
		}
		f.parts = append(f.parts, part{given.GetKey(), holds, given.GetValues(), given.GetKey() == "label"})
	}
	return f, nil
}

// names reports whether the filter asks for a type of events.
func (f filter) names(kind string) bool {
	return slices.ContainsFunc(f.parts, func(p part) bool {
		return p.key == kind || p.key == "type" && slices.ContainsFunc(p.values, func(v string) bool { return strings.EqualFold(v, kind) })
	})
}

func (f filter) passes(e *entry) bool {
	for _, p := range f.parts {
		holds := func(value string) bool { return p.holds(e, value) }
		fails := func(value string) bool { return !p.holds(e, value) }
		if p.all && slices.ContainsFunc(p.values, fails) || !p.all && !slices.ContainsFunc(p.values, holds) {
			return false
		}
	}
	return true
}
