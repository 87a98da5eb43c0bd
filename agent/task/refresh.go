package task

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// refreshing is how the files of a running task follow the values of its secrets and configs.
type refreshing struct {
	// wanted says that there may be news since the last OpRefresh began.
	wanted bool
	// at is when to try again after a failure, or zero.
	at time.Time
	// err is why files don't have the newest values, or empty.
	err string
}

// refresh begins OpRefresh if there may be news for files that are written again on a change. While one is under way, the next waits.
func (m *Machine) refresh(now time.Time) {
	again := !m.refreshing.at.IsZero() && !now.Before(m.refreshing.at)
	if !m.refreshing.wanted && !again || m.underWay[OpRefresh] || m.stopWanted() || !rewritten(m.task) {
		return
	}
	m.refreshing.wanted, m.refreshing.at = false, time.Time{}
	m.do(OpRefresh)
}

// notRefreshed takes in why files don't have what they should.
func (m *Machine) notRefreshed(now time.Time, err error) {
	if fault.KindOf(err) == fault.NotFound { // which OpWatch tells
		return
	}
	m.refreshing.at = now.Add(m.delay())
	m.noteRefresh(nil, err.Error())
}

// noteRefresh tells what is new of the files; values are nil when that isn't known.
func (m *Machine) noteRefresh(values []*api.ReceivedValue, err string) {
	if m.phase != phaseRunning || m.unhealthy != "" || m.stopWanted() {
		return
	}
	same := values == nil || slices.EqualFunc(values, m.container.GetValues(), func(a, b *api.ReceivedValue) bool { return proto.Equal(a, b) })
	if same && err == m.refreshing.err {
		return
	}
	m.refreshing.err = err
	if !same {
		m.container = proto.CloneOf(m.container)
		m.container.Values = values
	}
	m.tell(m.status.GetMessage(), m.trouble())
}

// rewritten reports whether a task has files that are written again when their values change.
func rewritten(t *api.Task) bool {
	return slices.ContainsFunc(t.GetSpec().GetContainer().GetSecrets(), func(r *api.SecretReference) bool {
		return r.GetOnChange() != api.OnChange_ON_CHANGE_UNSPECIFIED
	})
}

// trouble says what is wrong with a task that runs, or is empty.
func (m *Machine) trouble() string { return cmp.Or(m.unready, m.refreshing.err) }
