// Mtls is a service of the tests, as its authors would write it: it knows SPIFFE, by the library go-spiffe, and nothing of Skep.
//
//	mtls serve ADDRESS CLIENT   answers over mutual TLS, to the tasks of the service CLIENT only
//	mtls call ADDRESS SERVER    asks each second, and believes the tasks of the service SERVER only
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	if len(os.Args) != 4 {
		os.Exit(64)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command, address, peer string) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	own, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	fmt.Println("I am", own.ID)
	only := tlsconfig.AdaptMatcher(func(id spiffeid.ID) error {
		if !id.MemberOf(own.ID.TrustDomain()) || !strings.HasPrefix(id.Path(), "/service/"+peer+"/task/") {
			return fmt.Errorf("%s is not of the service %s", id, peer)
		}
		return nil
	})
	switch command {
	case "serve":
		return serve(address, source, only)
	case "call":
		return call(ctx, address, source, only)
	}
	return fmt.Errorf("unknown command %s", command)
}

func serve(address string, source *workloadapi.X509Source, only tlsconfig.Authorizer) error {
	server := http.Server{
		Addr: address, TLSConfig: tlsconfig.MTLSServerConfig(source, source, only), ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
			if err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			fmt.Fprint(w, "hello ", id)
		}),
	}
	return server.ListenAndServeTLS("", "")
}

func call(ctx context.Context, address string, source *workloadapi.X509Source, only tlsconfig.Authorizer) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, only), DisableKeepAlives: true,
	}}
	for ; ; time.Sleep(time.Second) {
		fmt.Println(ask(ctx, &client, "https://"+address))
	}
}

func ask(ctx context.Context, client *http.Client, url string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	answer, err := client.Do(request)
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if err != nil {
		return "no answer: " + err.Error()
	}
	id, err := x509svid.IDFromCert(answer.TLS.PeerCertificates[0])
	if err != nil {
		return "no answer: " + err.Error()
	}
	return fmt.Sprintf("%s says %s", id, text)
}
