package logforward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/runtime/logfile"
)

// Severities of RFC 5424, section 6.2.1, which journald's priorities are, too.
const (
	severityError = 3
	severityInfo  = 6
	severities    = 8
)

func severity(e logfile.Entry) int {
	if e.Stream == logfile.Stderr {
		return severityError
	}
	return severityInfo
}

// message makes syslog's messages of the lines of one task.
type message struct {
	logdriver.Syslog
	host, name, task string
}

func (m message) encode(e logfile.Entry) []byte {
	var b bytes.Buffer
	priority := m.Facility*severities + severity(e)
	switch {
	case m.Format == logdriver.RFC5424: // the task is the PROCID
		const micro = "2006-01-02T15:04:05.000000Z"
		fmt.Fprintf(&b, "<%d>1 %s %s %s %s - - ", priority, e.Time.UTC().Format(micro), m.host, m.name, m.task)
	case m.Network == logdriver.Unixgram:
		fmt.Fprintf(&b, "<%d>%s %s: ", priority, e.Time.Local().Format(time.Stamp), m.name)
	default:
		fmt.Fprintf(&b, "<%d>%s %s %s: ", priority, e.Time.Local().Format(time.Stamp), m.host, m.name)
	}
	escape(&b, bytes.TrimSuffix(e.Text, []byte("\n")))
	if m.Network != logdriver.TCP && m.Network != logdriver.TLS {
		return b.Bytes()
	}
	if m.Format == logdriver.RFC3164 {
		b.WriteByte('\n') // which is in no message: it is escaped
		return b.Bytes()
	}
	return append(fmt.Appendf(nil, "%d ", b.Len()), b.Bytes()...)
}

// escape writes a text without control characters, each byte of which becomes # and three octal digits, as rsyslog and syslog-ng have it.
func escape(b *bytes.Buffer, text []byte) {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		const firstC1, lastC1, del, lineSeparator, paragraphSeparator = 0x80, 0x9f, 0x7f, 0x2028, 0x2029
		invalid := r == utf8.RuneError && size == 1
		if r < ' ' && r != '\t' || r == del || r >= firstC1 && r <= lastC1 || r == lineSeparator || r == paragraphSeparator || invalid {
			for _, c := range text[:size] {
				fmt.Fprintf(b, "#%03o", c)
			}
		} else {
			b.Write(text[:size])
		}
		text = text[size:]
	}
}

// maxLabel is the most bytes of a label's value that the journal gets: the 32 that a service may name fit in a datagram with the longest line then,
// of which Linux takes 208 KiB by default.
const maxLabel = 2048

// field is one of journald's.
type field struct{ name, value string }

// journalFields are what the journal has of each line of a task. Docker's names where it has them.
func journalFields(t *api.Task, name string, labels []string) []field {
	const short = 12
	id := t.GetId()
	out := []field{
		{"SYSLOG_IDENTIFIER", name},
		{"CONTAINER_ID", id[:min(short, len(id))]},
		{"CONTAINER_ID_FULL", id},
		{"CONTAINER_NAME", t.GetServiceName() + "." + strconv.FormatUint(t.GetSlot(), 10) + "." + id},
		{"CONTAINER_TAG", strings.TrimPrefix(name, "skep/")},
		{"IMAGE_NAME", t.GetSpec().GetContainer().GetImage()},
		{"SKEP_SERVICE", t.GetServiceName()},
	}
	for _, label := range labels {
		if value, ok := t.GetSpec().GetContainer().GetLabels()[label]; ok {
			out = append(out, field{labelField(label), fault.Clip(value, maxLabel)})
		}
	}
	return out
}

// labelField makes a field's name of a label's: none that means something to journald, or to who reads it.
func labelField(label string) string {
	const most = 64 // journald's limit
	name := "CONTAINER_LABEL_" + strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(label))
	return name[:min(len(name), most)]
}

// journalEntry is an entry in journald's own format, in which a value may have any bytes. It fits in a datagram, as a line of the log and the
// labels of a container (maxLabel) are far shorter than one.
func journalEntry(fields []field, e logfile.Entry) []byte {
	var b bytes.Buffer
	text, whole := bytes.CutSuffix(e.Text, []byte("\n"))
	writeField(&b, "MESSAGE", string(text))
	writeField(&b, "PRIORITY", strconv.Itoa(severity(e)))
	writeField(&b, "SYSLOG_TIMESTAMP", e.Time.UTC().Format(time.RFC3339Nano))
	for _, f := range fields {
		writeField(&b, f.name, f.value)
	}
	if !whole {
		writeField(&b, "CONTAINER_PARTIAL_MESSAGE", "true")
	}
	return b.Bytes()
}

// writeField writes a field by its length, so that no byte of the value has a meaning.
func writeField(b *bytes.Buffer, name, value string) {
	b.WriteString(name + "\n")
	b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	b.WriteString(value + "\n")
}
