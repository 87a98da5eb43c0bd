package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// Where each secret may be on a manager's disk, as paths below its data directory. What is not here may be nowhere.
var mayHold = map[string][]string{
	// The key-encryption key while the swarm has no unlock key: it protects nothing against a stolen disk, and `skep info` says so.
	"key file": {"store.key"},
	// A node's own identity.
	"node key": {"certificates/swarm-node.key"},
}

// After a life with kills, rotations, snapshots, autolock on and off, a leave, a rejoin and backups, and with a service that keeps a secret on all of
// its nodes, no file of any manager holds a secret, a join token, the CA's key, an unlock key or what opens a backup, however written.
func TestCanary_NoSecretIsOnADisk(t *testing.T) {
	t.Parallel()
	network := newLab(t)
	managers := swarmOf(t, network, "m1", "m2", "m3")
	l := &life{t: t, network: network, managers: managers, client: newClient(t, 1, managers...), secrets: map[string][]byte{}}
	l.write()
	l.offline()
	l.tokens()
	l.kill()
	l.autolock()
	l.rotate()
	l.rejoin()
	l.write()
	l.backup()
	for _, m := range managers {
		l.await(m, "^1$", "info", "--format", "{{.OfflineTasks}}")
	}
	for _, m := range managers {
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	l.keys()
	for _, m := range managers {
		l.search(m)
	}
}

// life does to a swarm what brings secrets near a disk, and remembers them.
type life struct {
	t        *testing.T
	network  *lab.Network
	managers []*lab.Machine
	client   *client
	secrets  map[string][]byte // by what they are
	written  int
}

func (l *life) run(m *lab.Machine, args ...string) string {
	l.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	out, err := m.Skep(ctx, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (l *life) await(m *lab.Machine, expression string, args ...string) {
	l.t.Helper()
	if _, err := awaitOutput(m, expression, args...); err != nil {
		l.t.Fatal(err)
	}
}

// write creates secrets, more than fit between two snapshots.
func (l *life) write() {
	l.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	l.run(l.managers[0], "swarm", "update", "--snapshot-interval", "10")
	for range 20 {
		l.written++
		value := []byte(rand.Text())
		if _, err := l.client.createSecret(ctx, fmt.Sprint("canary", l.written), value); err != nil {
			l.t.Fatal(err)
		}
		l.secrets[fmt.Sprint("secret ", l.written)] = value
	}
}

// offline makes a service that has all nodes keep a secret on their disks.
func (l *life) offline() {
	l.t.Helper()
	l.run(l.managers[0], "service", "create", "-q", "--name", "keeps", "--mode", "global", "--secret", "canary1", "--secret-offline", "skep.local/hello")
	for _, m := range l.managers {
		l.await(m, "^1$", "info", "--format", "{{.OfflineTasks}}")
	}
}

// tokens rotates the join tokens.
func (l *life) tokens() {
	l.t.Helper()
	for i, args := range [][]string{{"-q", "worker"}, {"-q", "manager"}, {"-q", "--rotate", "worker"}, {"-q", "--rotate", "manager"}} {
		token := l.run(l.managers[0], append([]string{"swarm", "join-token"}, args...)...)
		l.secrets[fmt.Sprint("join token ", i+1)] = []byte(token[strings.LastIndex(token, "-")+1:])
	}
}

// kill ends the leader with SIGKILL, and writes without it.
func (l *life) kill() {
	l.t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	leader, err := l.client.leaderOf(ctx, l.managers...)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.client.createSecret(ctx, "while-one-is-down", []byte("x")); err != nil {
		l.t.Fatal(err)
	}
	if err := leader.Start(ctx); err != nil {
		l.t.Fatal(err)
	}
	l.await(leader, "while-one-is-down", "secret", "ls")
}

// autolock turns it on, rotates the unlock key, restarts a manager with it, and turns it off again.
func (l *life) autolock() {
	l.t.Helper()
	m1, m2 := l.managers[0], l.managers[1]
	l.run(m1, "swarm", "update", "--autolock=true")
	for _, m := range l.managers {
		l.await(m, `unlock key \(autolock\)`, "info")
	}
	l.unlockKey("unlock key 1", l.run(m1, "swarm", "unlock-key", "-q"))
	second := l.run(m1, "swarm", "unlock-key", "--rotate", "-q")
	l.unlockKey("unlock key 2", second)
	if err := awaitSealed(m2, second); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := deadline()
	defer cancel()
	if err := m2.Kill(); err != nil {
		l.t.Fatal(err)
	}
	if err := m2.Start(ctx); err != nil {
		l.t.Fatal(err)
	}
	l.await(m2, "Swarm: locked", "info")
	unlock := m2.Command(ctx, "swarm", "unlock")
	unlock.Stdin = strings.NewReader(second + "\n")
	if out, err := unlock.CombinedOutput(); err != nil {
		l.t.Fatalf("unlock: %v: %s", err, out)
	}
	l.run(m1, "swarm", "update", "--autolock=false")
	for _, m := range l.managers {
		l.await(m, "key file beside the data", "info")
	}
}

// unlockKey remembers an unlock key as people and as the store have it.
func (l *life) unlockKey(what, text string) {
	l.t.Helper()
	key, err := seal.ParseUnlockKey(text)
	if err != nil {
		l.t.Fatal(err)
	}
	l.secrets[what+", as text"], l.secrets[what] = []byte(text), key.Bytes()
}

// rotate changes the data keys of all managers.
func (l *life) rotate() {
	l.t.Helper()
	l.run(l.managers[0], "swarm", "data-key", "--rotate")
}

// rejoin makes a manager leave, and join again.
func (l *life) rejoin() {
	l.t.Helper()
	m1, m3 := l.managers[0], l.managers[2]
	token := l.run(m1, "swarm", "join-token", "-q", "manager")
	l.run(m3, "swarm", "leave", "--force")
	l.await(m1, "m3 +Down", "node", "ls")
	l.run(m3, "swarm", "join", "--token", token, fmt.Sprintf("%s:%d", m1.Address, lab.Port))
	l.await(m3, "Managers: 3$", "info")
}

// backup makes a backup that its own key seals and one that a passphrase seals, in the directory that is searched, and checks one.
func (l *life) backup() {
	l.t.Helper()
	m := l.managers[1]
	phrase := []byte(rand.Text())
	file := filepath.Join(l.t.TempDir(), "passphrase")
	if err := os.WriteFile(file, phrase, 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.secrets["passphrase"], l.secrets["backup key"] = phrase, []byte(l.run(m, "backup", "key", "-q"))
	sealed := filepath.Join(m.Dir, "swarm.bak")
	l.run(m, "backup", "create", sealed)
	l.run(m, "backup", "create", "--passphrase-file", file, filepath.Join(m.Dir, "phrased.bak"))
	l.run(m, "backup", "verify", sealed)
}

// keys takes the keys of the swarm and of the managers from where they are, for the search.
func (l *life) keys() {
	l.t.Helper()
	var cluster *api.Cluster
	for _, o := range stateOnDisk(l.t, l.managers[0]).GetObjects() {
		if o.GetCluster() != nil {
			cluster = o.GetCluster()
		}
	}
	l.privateKey("CA key", cluster.GetRootCa().GetKey())
	for i, token := range []string{cluster.GetJoinTokens().GetWorker(), cluster.GetJoinTokens().GetManager()} {
		if want := string(l.secrets[fmt.Sprint("join token ", i+3)]); !strings.HasSuffix(token, want) {
			l.t.Errorf("the store has another token than was printed")
		}
	}
	for _, m := range l.managers {
		kek, err := seal.KeyFile(vfs.OS{}, filepath.Join(m.DataDir(), "store.key"))
		if err != nil {
			l.t.Fatal(err)
		}
		l.secrets["key file of "+m.Name] = kek.Bytes()
		text, err := os.ReadFile(filepath.Join(m.DataDir(), "certificates", "swarm-node.key"))
		if err != nil {
			l.t.Fatal(err)
		}
		l.privateKey("node key of "+m.Name, text)
	}
}

// privateKey remembers a key as its PEM body, its DER, and its secret number.
func (l *life) privateKey(what string, text []byte) {
	l.t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		l.t.Fatalf("%s is no PEM", what)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
	number, err := parsed.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
	body := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	l.secrets[what+", PEM"], l.secrets[what+", DER"], l.secrets[what] = body[2], block.Bytes, number
}

// search looks through every file of a machine.
func (l *life) search(m *lab.Machine) {
	l.t.Helper()
	found := map[string]bool{}
	files := 0
	err := filepath.WalkDir(m.Dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		files++
		below, _ := filepath.Rel(m.DataDir(), name)
		for what, secret := range l.secrets {
			form := formIn(content, secret)
			if form == "" {
				continue
			}
			found[what] = true
			if !allowed(what, m, below) {
				l.t.Errorf("%s: %s holds the %s, %s", m.Name, name, what, form)
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, own := range []string{"key file of " + m.Name, "node key of " + m.Name + ", PEM"} {
		if !found[own] {
			l.t.Errorf("%s: the %s was not found where it is: the search is blind", m.Name, own)
		}
	}
	l.t.Logf("%s: %d files, %d secrets; found, where it may be: %v", m.Name, files, len(l.secrets), slices.Sorted(maps.Keys(found)))
}

// allowed reports whether a file of a machine may hold a secret.
func allowed(what string, m *lab.Machine, file string) bool {
	kind, owner, _ := strings.Cut(what, " of ")
	owner, _, _ = strings.Cut(owner, ",")
	return owner == m.Name && slices.Contains(mayHold[kind], file)
}

// formIn returns the form in which the content holds a secret, or "".
func formIn(content, secret []byte) string {
	for form, text := range forms(secret) {
		if bytes.Contains(content, text) {
			return form
		}
	}
	return ""
}

// forms are the ways in which a secret could be written.
func forms(secret []byte) map[string][]byte {
	reversed := slices.Clone(secret)
	slices.Reverse(reversed)
	forms := map[string][]byte{
		"as it is": secret, "reversed": reversed, "in hexadecimal": []byte(hex.EncodeToString(secret)),
		"in capital hexadecimal": bytes.ToUpper([]byte(hex.EncodeToString(secret))),
	}
	var wide []byte
	for _, unit := range utf16.Encode([]rune(string(secret))) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	forms["in UTF-16"] = wide
	for before := range 3 { // where base64 starts among the bytes around it
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "URL base64": base64.RawURLEncoding} {
			text := []byte(encoding.EncodeToString(slices.Concat(make([]byte, before), secret)))
			// The first and the last characters depend on the neighbours.
			forms[fmt.Sprintf("in %s from byte %d on", name, before)] = text[2*before : len(text)-2]
		}
	}
	return forms
}
