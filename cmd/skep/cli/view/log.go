package view

import (
	"strings"
	"time"

	"github.com/skep-io/skep/api"
)

// LogLine is a line that a task wrote.
type LogLine struct {
	Time    time.Time
	Service string
	// Task is its place in the service, such as web.1.
	Task, TaskID string
	Node, NodeID string
	// Stream is stdout or stderr.
	Stream string
	// Log is the line, with its end if it had one.
	Log     string
	Details map[string]string `json:",omitempty"`
	// Missed is how many lines of the task before this one could not be read.
	Missed uint64 `json:",omitempty"`
}

// NewLogLine shows a line.
func NewLogLine(l *api.LogLine) LogLine {
	return LogLine{
		Time: l.GetTime().AsTime(), Service: l.GetServiceName(), Task: TaskName(l.GetServiceName(), l.GetSlot()), TaskID: l.GetTaskId(),
		Node: l.GetNodeHostname(), NodeID: l.GetNodeId(), Stream: strings.ToLower(strings.TrimPrefix(l.GetStream().String(), "LOG_STREAM_")),
		Log: string(l.GetData()), Details: l.GetDetails(), Missed: l.GetMissed(),
	}
}
