package view

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// Meta is what every object of the store has.
type Meta struct {
	ID        string
	Version   Version
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Version is the index of the last change of an object.
type Version struct{ Index uint64 }

func metaOf(id string, meta *api.Meta) Meta {
	return Meta{
		ID: id, Version: Version{Index: meta.GetVersion()},
		CreatedAt: timeOf(meta.GetCreatedAt()), UpdatedAt: timeOf(meta.GetUpdatedAt()),
	}
}

// timeOf returns the zero time for an unset timestamp.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// durationOf returns nil for an unset duration.
func durationOf(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	duration := d.AsDuration()
	return &duration
}

// labelsOf returns labels that are never nil, so that JSON shows {}.
func labelsOf(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}

// word returns the name of an enum's value in lower case, without the enum's name and with - between words; "" for unspecified.
func word(name, prefix string) string {
	name = strings.TrimPrefix(name, prefix)
	if name == "UNSPECIFIED" {
		return ""
	}
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// Role returns worker or manager, or "".
func Role(r api.Role) string { return word(r.String(), "ROLE_") }

// Availability returns active, pause or drain, or "".
func Availability(a api.Availability) string { return word(a.String(), "AVAILABILITY_") }

// NodeState returns unknown, down or ready, or "".
func NodeState(s api.NodeState) string { return word(s.String(), "NODE_STATE_") }

// ApprovalState returns pending or approved, or "".
func ApprovalState(s api.ApprovalState) string { return word(s.String(), "APPROVAL_STATE_") }

// Reachability returns reachable or unreachable, or "".
func Reachability(r api.Reachability) string { return word(r.String(), "REACHABILITY_") }

// TaskState returns a state such as running, or "".
func TaskState(s api.TaskState) string { return word(s.String(), "TASK_STATE_") }

// LocalNodeState returns inactive, pending, active, error or locked, or "".
func LocalNodeState(s api.LocalNodeState) string { return word(s.String(), "LOCAL_NODE_STATE_") }

// Protocol returns tcp or udp, or "".
func Protocol(p api.Protocol) string { return word(p.String(), "PROTOCOL_") }

// PublishMode returns host, or "".
func PublishMode(m api.PublishMode) string { return word(m.String(), "PUBLISH_MODE_") }

// UpdateOrder returns stop-first or start-first, or "".
func UpdateOrder(o api.UpdateOrder) string { return word(o.String(), "UPDATE_ORDER_") }

// UpdateState returns a state such as updating or rollback_started, as Docker spells them, or "".
func UpdateState(s api.UpdateState) string {
	return strings.ReplaceAll(word(s.String(), "UPDATE_STATE_"), "-", "_")
}

// FailureAction returns pause, continue or rollback, or "".
func FailureAction(a api.FailureAction) string { return word(a.String(), "FAILURE_ACTION_") }

// RestartCondition returns none, on-failure or any, or "".
func RestartCondition(c api.RestartCondition) string { return word(c.String(), "RESTART_CONDITION_") }

// MountType returns tmpfs, or "".
func MountType(t api.MountType) string { return word(t.String(), "MOUNT_TYPE_") }

// propagationWord returns rslave and the like, or "".
func propagationWord(p api.MountPropagation) string { return word(p.String(), "MOUNT_PROPAGATION_") }
