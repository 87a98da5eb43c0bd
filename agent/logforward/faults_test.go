package logforward

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/logfile"
)

// warnings is a log that can be waited for.
type warnings chan string

func (w warnings) Write(p []byte) (int, error) {
	select {
	case w <- string(bytes.Clone(p)):
	default: // nobody waits for so many
	}
	return len(p), nil
}

// await waits until the log says something.
func (w warnings) await(t *testing.T, text string) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case line := <-w:
			if strings.Contains(line, text) {
				return
			}
		case <-timer.C:
			t.Fatalf("the daemon's log does not say %q", text)
		}
	}
}

const testHeader = "<30>Jan  2 03:04:05 skep/web: "

// A log that can't be opened now is sent on later, from where it was (F5).
func TestForwarder_GoesOnAfterAnErrorOfReading(t *testing.T) {
	n := newNode(t)
	socket := n.listen("unixgram", filepath.Join(n.dir, "dev-log"))
	older := filepath.Join(n.dir, "log.json.1")
	if err := os.Symlink(older, older); err != nil { // which can't be opened
		t.Fatal(err)
	}
	n.write("stdout", "one\n")
	n.follow("syslog", "syslog-address=unixgram://"+socket.LocalAddr().String(), "tag=web")
	n.log.await(t, "too many levels of symbolic links")
	if err := os.Remove(older); err != nil {
		t.Fatal(err)
	}
	want(t, next(t, socket), testHeader+"one")
	n.write("stdout", "two\n")
	want(t, next(t, socket), testHeader+"two")
}

// A disk without room for the position does not hold up the lines (F5).
func TestForwarder_GoesOnWithoutAPosition(t *testing.T) {
	n := newNode(t)
	socket := n.listen("unixgram", filepath.Join(n.dir, "dev-log"))
	if err := os.Mkdir(filepath.Join(n.dir, ".log.json.sent.tmp"), 0o700); err != nil { // which can't be written to
		t.Fatal(err)
	}
	n.follow("syslog", "syslog-address=unixgram://"+socket.LocalAddr().String(), "tag=web")
	for i := range 3 {
		n.write("stdout", fmt.Sprintf("%d\n", i))
		want(t, next(t, socket), fmt.Sprintf("%s%d", testHeader, i))
	}
	n.log.await(t, "save how far a log was sent")
}

// Where not even the line that says what is lost has room, lines are lost and counted, and sending goes on.
func TestStream_NoRoomToTellOfLostLines(t *testing.T) {
	n := newNode(t)
	socket := n.listen("unixgram", filepath.Join(n.dir, "dev-log"))
	size := 1 << 20 // which no datagram holds
	s := stream{f: n.f, task: "task1", path: filepath.Join(n.dir, "log.json"), told: map[string]time.Time{}, to: &sink{
		dial: func(context.Context) (net.Conn, error) { return net.Dial("unixgram", socket.LocalAddr().String()) },
		encode: func(e logfile.Entry) []byte {
			return append(bytes.Clone(e.Text), make([]byte, size)...)
		},
	}}
	defer s.to.close()
	send := func(text string) {
		t.Helper()
		if err := s.send(t.Context(), logfile.Entry{Stream: "stdout", Text: []byte(text)}); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	send("one")
	send("two")
	size = 0
	send("three")
	want(t, next(t, socket), "skep: 2 log lines lost\n")
	want(t, next(t, socket), "three")
}

// A service's labels leave room for its lines, however long they are.
func TestForwarder_HugeLabels(t *testing.T) {
	n := newNode(t)
	journal := n.listen("unixgram", n.journal)
	labels := map[string]string{}
	var names []string
	for i := range 32 { // as many as a service may name
		name := fmt.Sprintf("label%d", i)
		names, labels[name] = append(names, name), strings.Repeat("é", 10<<10)
	}
	n.f.Follow(&api.Task{Id: "task1", Spec: &api.TaskSpec{
		LogDriver: &api.LogDriver{Name: "journald", Options: map[string]string{"labels": strings.Join(names, ",")}},
		Container: &api.ContainerSpec{Labels: labels},
	}})
	text := strings.Repeat("x", logfile.MaxText)
	n.write("stdout", text)
	fields := journalFieldsOf(t, next(t, journal))
	want(t, fields["MESSAGE"], text)
	if value := fields["CONTAINER_LABEL_LABEL31"]; !strings.HasPrefix(value, "éé") || !strings.HasSuffix(value, "é…") {
		t.Errorf("the last label is %.100q", value)
	}
}

// A server that closes idle connections loses no line: the next goes by a new one.
func TestForwarder_IdleConnectionIsClosed(t *testing.T) {
	n := newNode(t)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	n.follow("syslog", "syslog-address=tcp://"+server.Addr().String(), "tag=web", "syslog-format=rfc3164")
	for i := range 3 {
		n.write("stdout", fmt.Sprintf("%d\n", i))
		conn, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		got, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		want(t, got, fmt.Sprintf("<30>Jan  2 03:04:05 host skep/web: %d\n", i))
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 { // the forwarder has seen it, and closes, too
			t.Fatalf("after the server has closed the connection: %q, %v", rest, err)
		}
	}
}

// Entries of before they had numbers are not sent again at each start: no position is behind them.
func TestForwarder_EntriesWithoutNumbers(t *testing.T) {
	n := newNode(t)
	log, err := os.OpenFile(filepath.Join(n.dir, "log.json"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for range 2 {
		if _, err := log.WriteString(`{"log":"old\n","stream":"stdout","time":"2030-01-02T03:04:05Z"}` + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	n.write("stdout", "new\n")
	socket := n.listen("unixgram", filepath.Join(n.dir, "dev-log"))
	n.follow("syslog", "syslog-address=unixgram://"+socket.LocalAddr().String(), "tag=web")
	want(t, next(t, socket), testHeader+"new")
	n.log.await(t, "have no numbers")
	if len(n.log) > 0 {
		t.Errorf("a second warning: %s", <-n.log)
	}
}
