// Probe is the program in the image of the agent's tests. See package tasktest for what it understands; besides that,
// "show PATH..." prints files, and "dial ADDRESS" connects to one, or to a socket by its path.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(64)
	}
	switch os.Args[1] {
	case "exit":
		code, err := strconv.Atoi(os.Args[2])
		if err != nil {
			os.Exit(64)
		}
		os.Exit(code)
	case "serve":
		await(true)
	case "stubborn":
		await(false)
	case "show":
		show(os.Args[2:])
	case "fill":
		fill()
	case "write": // a file of so many MiB
		size, err := strconv.Atoi(os.Args[2])
		if err == nil {
			err = os.WriteFile("/written", make([]byte, size<<20), 0o600)
		}
		fmt.Println("written:", err)
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
		fmt.Printf("uid=%d gid=%d args=%q\n", os.Getuid(), os.Getgid(), os.Args)
	case "dial":
		dial(os.Args[2])
	case "listen":
		listen(os.Args[2])
	}
}

func await(obedient bool) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	fmt.Println("ready")
	for s := range signals {
		fmt.Println("got", s)
		if obedient {
			os.Exit(0)
		}
	}
}

func show(paths []string) {
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			fmt.Println(err)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			fmt.Println(err)
			continue
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Printf("%s %v %d:%d\n%s\n", p, info.Mode(), st.Uid, st.Gid, data)
	}
}

func fill() {
	var all [][]byte
	for range 1 << 12 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println(len(all))
}

func dial(address string) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("connected", conn.LocalAddr())
}

func listen(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for {
		conn, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		fmt.Fprintln(conn, "hello", conn.RemoteAddr())
		conn.Close()
	}
}
