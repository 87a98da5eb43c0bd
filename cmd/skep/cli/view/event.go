package view

import (
	"maps"

	"github.com/skep-io/skep/api"
)

// Event is an event with the JSON keys of Docker's, and where it is among the others.
type Event struct {
	Type   string
	Action string
	Actor  Actor
	Scope  string `json:"scope"`
	// Time and TimeNano are since 1970.
	Time     int64 `json:"time"`
	TimeNano int64 `json:"timeNano"`
	Index    uint64
	Cursor   string
}

// Actor is what an event is about.
type Actor struct {
	ID string
	// Attributes are the event's own, and the labels of what it is about.
	Attributes map[string]string
}

// NewEvent shows an event.
func NewEvent(e *api.Event) Event {
	at := e.GetTime().AsTime()
	attributes := map[string]string{}
	maps.Copy(attributes, e.GetLabels())
	maps.Copy(attributes, e.GetAttributes()) // a label can't pretend to be one
	return Event{
		Type: e.GetType(), Action: e.GetAction(), Actor: Actor{ID: e.GetActorId(), Attributes: attributes}, Scope: "swarm",
		Time: at.Unix(), TimeNano: at.UnixNano(), Index: e.GetIndex(), Cursor: e.GetCursor(),
	}
}
