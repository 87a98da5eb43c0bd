package logforward

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/logfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds the wait for what must come.
const limit = 30 * time.Second

// node has the log of one task.
type node struct {
	t       *testing.T
	dir     string
	writer  *logfile.Writer
	ended   chan struct{}
	journal string
	log     warnings
	f       *Forwarder
	stop    func()
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), ended: make(chan struct{}), log: make(warnings, 100)}
	n.journal = filepath.Join(n.dir, "journal")
	var err error
	if n.writer, err = logfile.New(logfile.Config{Path: filepath.Join(n.dir, "log.json"), MaxSize: 1 << 18, MaxFiles: 2}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.writer.Close() })
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

// start begins as a daemon does.
func (n *node) start() {
	n.t.Helper()
	w, err := logfile.NewWatcher()
	if err != nil {
		n.t.Fatal(err)
	}
	n.f = New(Config{
		Path:     func(string) (string, error) { return filepath.Join(n.dir, "log.json"), nil },
		Ended:    func(string) <-chan struct{} { return n.ended },
		Expand:   func(_ *api.Task, text string) (string, error) { return strings.ReplaceAll(text, "{{x}}", "ssh d"), nil },
		Hostname: "host", Watcher: w, Journal: n.journal, Logger: slog.New(slog.NewTextHandler(n.log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{w.Run, n.f.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				n.t.Error(err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		w.Close()
	})
}

// follow begins to send on what the task writes.
func (n *node) follow(name string, options ...string) {
	d := &api.LogDriver{Name: name, Options: map[string]string{}}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		d.Options[key] = value
	}
	n.f.Follow(&api.Task{
		Id: "task1", ServiceName: "web", Slot: 2,
		Spec: &api.TaskSpec{LogDriver: d, Container: &api.ContainerSpec{Image: "app:1", Labels: map[string]string{"com.example.tier": "front\nMESSAGE=x"}}},
	})
}

func (n *node) write(stream, text string) {
	n.writer.Write(logfile.Entry{Time: time.Date(2030, 1, 2, 3, 4, 5, 678, time.Local), Stream: stream, Text: []byte(text)})
}

// listen listens for datagrams.
func (n *node) listen(network, address string) net.PacketConn {
	n.t.Helper()
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn
}

// next returns the next datagram.
func next(t *testing.T, conn net.PacketConn) string {
	t.Helper()
	b := make([]byte, 1<<18)
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	count, _, err := conn.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:count])
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// What a container writes is never more than the text of one message (F4).
func TestForwarder_SyslogOfTheNode(t *testing.T) {
	n := newNode(t)
	socket := n.listen("unixgram", filepath.Join(n.dir, "dev-log"))
	n.follow("syslog", "syslog-address=unixgram://"+socket.LocalAddr().String(), "tag={{x}}[1]: <0>")
	for _, c := range []struct{ stream, text, message string }{
		{"stdout", "hello\n", "<30>Jan  2 03:04:05 skep/ssh_d_1____0_: hello"},
		{"stderr", "<0>Jan  2 03:04:05 kernel: panic\n", "<27>Jan  2 03:04:05 skep/ssh_d_1____0_: <0>Jan  2 03:04:05 kernel: panic"},
		{"stdout", "a\r<0>b\x00c\td\x1b[2J\u0085\u2028é\n", "<30>Jan  2 03:04:05 skep/ssh_d_1____0_: a#015<0>b#000c\td#033[2J#302#205#342#200#250é"},
		{"stdout", "\n", "<30>Jan  2 03:04:05 skep/ssh_d_1____0_: "},
	} {
		n.write(c.stream, c.text)
		want(t, next(t, socket), c.message)
	}
}

func TestForwarder_SyslogElsewhere(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678, time.Local).UTC().Format("2006-01-02T15:04:05.000000Z")
	t.Run("udp", func(t *testing.T) {
		n := newNode(t)
		server := n.listen("udp", "127.0.0.1:0")
		n.follow("syslog", "syslog-address=udp://"+server.LocalAddr().String(), "tag=web", "syslog-facility=local0")
		n.write("stdout", "hello\n")
		want(t, next(t, server), "<134>1 "+at+" host skep/web task1 - - hello")
		n.write("stdout", strings.Repeat("\x01", logfile.MaxText-1)+"\n") // which no datagram holds
		n.write("stderr", "after it\n")
		want(t, next(t, server), "<131>1 "+at+" host skep/web task1 - - skep: 1 log lines lost")
		want(t, next(t, server), "<131>1 "+at+" host skep/web task1 - - after it")
	})
	for _, format := range []string{"rfc5424", "rfc3164"} {
		t.Run("tcp, "+format, func(t *testing.T) {
			n := newNode(t)
			server, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			n.follow("syslog", "syslog-address=tcp://"+server.Addr().String(), "tag=web", "syslog-format="+format)
			n.write("stdout", "1 x\n")
			n.write("stdout", "2\n")
			conn, err := server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			messages := []string{"<30>Jan  2 03:04:05 host skep/web: 1 x\n", "<30>Jan  2 03:04:05 host skep/web: 2\n"}
			if format == "rfc5424" {
				for i, text := range []string{"1 x", "2"} {
					messages[i] = "<30>1 " + at + " host skep/web task1 - - " + text
					messages[i] = fmt.Sprintf("%d %s", len(messages[i]), messages[i])
				}
			}
			got := make([]byte, len(messages[0])+len(messages[1]))
			if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, got); err != nil {
				t.Fatal(err)
			}
			want(t, string(got), messages[0]+messages[1])
		})
	}
}

// A server proves itself by the certificates that the service names, and gets no line before.
func TestForwarder_TLS(t *testing.T) {
	n := newNode(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{{127, 0, 0, 1}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(n.dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address := "syslog-address=tcp+tls://" + server.Addr().String()
	accept := func() (string, error) {
		conn, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(conn).ReadString('\n')
	}
	n.write("stdout", "hello\n")
	n.follow("syslog", address, "syslog-format=rfc3164", "tag=web")
	if got, err := accept(); err == nil || got != "" {
		t.Errorf("a server that nobody vouches for got %q, %v", got, err)
	}
	n.stop()
	n.start()
	n.follow("syslog", address, "syslog-format=rfc3164", "tag=web", "syslog-tls-ca-cert="+ca)
	got, err := accept()
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, "<30>Jan  2 03:04:05 host skep/web: hello\n")
}

// journalFieldsOf reads journald's format, as its documentation has it.
func journalFieldsOf(t *testing.T, datagram string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for datagram != "" {
		name, rest, _ := strings.Cut(datagram, "\n")
		if strings.Contains(name, "=") || len(rest) < 8 {
			t.Fatalf("bad field %q", name)
		}
		size := binary.LittleEndian.Uint64([]byte(rest))
		out[name], datagram = rest[8:8+size], rest[8+size+1:]
	}
	return out
}

func TestForwarder_Journald(t *testing.T) {
	n := newNode(t)
	journal := n.listen("unixgram", n.journal)
	n.follow("journald", "labels=com.example.tier,nothere")
	n.write("stderr", "one\nPRIORITY=0\n_UID=0\n")
	fields := map[string]string{
		"MESSAGE": "one\nPRIORITY=0\n_UID=0", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "skep/__.Service.Name__.__.Task.Slot__",
		"SYSLOG_TIMESTAMP": time.Date(2030, 1, 2, 3, 4, 5, 678, time.Local).UTC().Format(time.RFC3339Nano),
		"CONTAINER_ID":     "task1", "CONTAINER_ID_FULL": "task1", "CONTAINER_NAME": "web.2.task1", "CONTAINER_TAG": "__.Service.Name__.__.Task.Slot__",
		"IMAGE_NAME": "app:1", "SKEP_SERVICE": "web", "CONTAINER_LABEL_COM_EXAMPLE_TIER": "front\nMESSAGE=x",
	}
	if diff := cmp.Diff(fields, journalFieldsOf(t, next(t, journal))); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	n.write("stdout", strings.Repeat("\x01", logfile.MaxText)) // the largest there is
	got := journalFieldsOf(t, next(t, journal))
	if got["MESSAGE"] != strings.Repeat("\x01", logfile.MaxText) || got["CONTAINER_PARTIAL_MESSAGE"] != "true" || got["PRIORITY"] != "6" {
		t.Errorf("of a part of a line: %d bytes, partial %q, priority %s", len(got["MESSAGE"]), got["CONTAINER_PARTIAL_MESSAGE"], got["PRIORITY"])
	}
}

// A restart neither repeats nor loses lines; those that a server that was gone has missed are counted (F1, F2, F3).
func TestForwarder_GoesOnWhereItWas(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.dir, "dev-log")
	address := "syslog-address=unixgram://" + path
	socket := n.listen("unixgram", path)
	n.follow("syslog", address, "tag=web")
	const header = "<30>Jan  2 03:04:05 skep/web: "
	for i := range 3 {
		n.write("stdout", fmt.Sprintf("%d\n", i))
		want(t, next(t, socket), fmt.Sprintf("%s%d", header, i))
	}
	n.stop()
	n.write("stdout", "while it was stopped\n")
	n.start()
	n.follow("syslog", address, "tag=web")
	want(t, next(t, socket), header+"while it was stopped")
	n.stop()
	if err := errors.Join(socket.Close(), os.RemoveAll(path)); err != nil {
		t.Fatal(err)
	}
	const many = 2000
	for i := range many { // more than is kept
		n.write("stdout", fmt.Sprintf("%d %s\n", i, strings.Repeat("x", 1000)))
	}
	n.start()
	n.follow("syslog", address, "tag=web") // while nobody listens: it tries again
	socket = n.listen("unixgram", path)
	var lost, first int
	if _, err := fmt.Sscanf(next(t, socket), "<27>Jan  2 03:04:05 skep/web: skep: %d log lines lost", &lost); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(next(t, socket), header+"%d", &first); err != nil || first != lost || lost < many/2 {
		t.Errorf("%d lines are told as lost, and the first after them is %d, %v", lost, first, err)
	}
	for i := first + 1; i < many; i++ {
		if got := next(t, socket); !strings.HasPrefix(got, fmt.Sprintf("%s%d ", header, i)) {
			t.Fatalf("line %d is %.60s", i, got)
		}
	}
	close(n.ended)
}
