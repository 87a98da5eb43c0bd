package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newKeeper runs a keeper in this process, which has no other children, and connects to it.
func newKeeper(t *testing.T) (root string, c *Client) {
	t.Helper()
	root = t.TempDir()
	k, err := New(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- k.Run() }()
	c = dial(t, root)
	t.Cleanup(func() {
		if err := errors.Join(c.Settle(), c.Close()); err != nil {
			t.Error(err)
		}
		last := dial(t, root)
		if err := errors.Join(last.Settle(), last.Close()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil { // I5
			t.Error(err)
		}
		k.Close()
	})
	return root, c
}

func dial(t *testing.T, root string) *Client {
	t.Helper()
	c, err := Dial(context.Background(), Socket(root))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pipe gives both ends. The caller closes them.
func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// read gives what is in a pipe.
func read(t *testing.T, fd int) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestKeeper_KeepsWhatIsInAPipe(t *testing.T) {
	root, c := newKeeper(t)
	r, w := pipe(t)
	if _, err := unix.Write(w, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := c.Hold("a", 1, r); err != nil {
		t.Fatal(err)
	}
	closeAll([]int{r, w})
	if _, err := c.Ask("b"); err != nil { // then it has read the other
		t.Fatal(err)
	}
	other := dial(t, root) // as the next supervisor is
	defer other.Close()
	held, err := other.Ask("a")
	if err != nil || !held.Known || held.Exited || len(held.Files) != 1 {
		t.Fatalf("it has %+v, %v", held, err)
	}
	defer closeAll(held.Files)
	if got := read(t, held.Files[0]); got != "last words" {
		t.Errorf("in the pipe: %q", got)
	}
}

func TestKeeper_LetsGo(t *testing.T) {
	root, c := newKeeper(t)
	for name, forget := range map[string]func(*Client) error{
		"forget": func(other *Client) error { return other.Forget("a") },
		"settle": (*Client).Settle,
		"hold": func(other *Client) error { // of something else by that name
			return other.Hold("a", 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := pipe(t)
			defer unix.Close(w)
			if err := c.Hold("a", 1, r); err != nil {
				t.Fatal(err)
			}
			unix.Close(r)
			if _, err := c.Ask("b"); err != nil { // then it has the other
				t.Fatal(err)
			}
			other := dial(t, root)
			defer other.Close()
			if err := forget(other); err != nil {
				t.Fatal(err)
			}
			if _, err := other.Ask("b"); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(w, []byte("x")); !errors.Is(err, unix.EPIPE) {
				t.Errorf("write to what nobody can read: %v, want EPIPE", err)
			}
		})
	}
}

func TestKeeper_Bounds(t *testing.T) { // I3
	_, c := newKeeper(t)
	for i := range maxHeld + 10 {
		if err := c.Hold(fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{fmt.Sprint(maxHeld - 1): true, fmt.Sprint(maxHeld): false} {
		if held, err := c.Ask(name); err != nil || held.Known != want {
			t.Errorf("%s: %+v, %v, want known: %v", name, held, err, want)
		}
	}
	if err := c.Hold(strings.Repeat("n", maxMessage), 1); !errors.Is(err, ErrMessage) {
		t.Errorf("a long message: %v, want ErrMessage", err)
	}
	if err := c.Forget("0"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []message{
		{Op: opHold, Name: strings.Repeat("n", maxName+1), Pid: 1}, {Op: opHold, Pid: 1}, {Op: opHold, Name: "no process"},
	} {
		if err := c.tell(m, nil); err != nil {
			t.Fatal(err)
		}
		if held, err := c.Ask(m.Name); err != nil || held.Known {
			t.Errorf("%.20q: %+v, %v", m.Name, held, err)
		}
	}
}

// TestKeeper_AMessageThatItDoesNotUnderstand ends nothing: somebody's containers are held.
func TestKeeper_AMessageThatItDoesNotUnderstand(t *testing.T) {
	_, c := newKeeper(t)
	if err := c.Hold("a", 1); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"x", "[]", `{"Op":1}`, strings.Repeat(" ", maxMessage+1)} {
		if _, err := c.conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	r, w := pipe(t)
	defer closeAll([]int{r, w})
	if err := send(c.conn, message{Op: opHold, Name: "b", Pid: 1}, []int{r, r, r, r, r, r}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ask(message{Op: "later"}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("an operation of a later version: %v, want ErrRefused", err)
	}
	if _, err := c.Start(nil, os.Stderr); !errors.Is(err, ErrRefused) {
		t.Errorf("a supervisor without arguments: %v, want ErrRefused", err)
	}
	if held, err := c.Ask("a"); err != nil || !held.Known {
		t.Errorf("it has %+v, %v", held, err)
	}
	if held, err := c.Ask("b"); err != nil || !held.Known || len(held.Files) != 0 {
		t.Errorf("with too many descriptors it has %+v, %v; want none of them", held, err)
	}
}

func TestKeeper_OnlyRootMayConnect(t *testing.T) { // I4
	root, _ := newKeeper(t)
	if st, err := os.Stat(Socket(root)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
}
