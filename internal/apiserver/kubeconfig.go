// Package apiserver calls kube-apiserver: nodes and their conditions, and no more. It stands for client-go, which would make
// its users ten times as large.
package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// ErrCredentials is for a kubeconfig whose way to log in takes more than a certificate or a token.
var ErrCredentials = errors.New("only client certificates and tokens are supported")

// callTimeout is for one call. It is what client-go gives the calls of kubectl to find out what a server has.
const callTimeout = 32 * time.Second

// kubeconfig is what is used of a file of kubectl (k8s.io/client-go/tools/clientcmd/api/v1).
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string  `json:"name"`
		Cluster cluster `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User user   `json:"user"`
	} `json:"users"`
}

type cluster struct {
	Server     string `json:"server"`
	ServerName string `json:"tls-server-name"`
	Insecure   bool   `json:"insecure-skip-tls-verify"`
	CAFile     string `json:"certificate-authority"`
	CAData     []byte `json:"certificate-authority-data"`
	ProxyURL   string `json:"proxy-url"`
}

type user struct {
	CertificateFile string         `json:"client-certificate"`
	CertificateData []byte         `json:"client-certificate-data"`
	KeyFile         string         `json:"client-key"`
	KeyData         []byte         `json:"client-key-data"`
	Token           string         `json:"token"`
	TokenFile       string         `json:"tokenFile"`
	Exec            map[string]any `json:"exec"`
	AuthProvider    map[string]any `json:"auth-provider"`
	Username        string         `json:"username"`
	As              string         `json:"as"`
}

// Load returns a client for a context of a kubeconfig, "" for its current one. Nothing is called yet. The error is
// ErrCredentials for ways to log in that it has not.
func Load(path, context string) (*Client, error) {
	c, err := load(path, context)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func load(path, context string) (*Client, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.Unwrap(err) // the path is told already
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		return nil, errors.New("not a kubeconfig") // the parser's words may quote a secret
	}
	cluster, user, err := k.of(context)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path) // that files in it are relative to
	server, err := url.Parse(cluster.Server)
	if err != nil || server.Host == "" || server.Scheme != "https" && server.Scheme != "http" {
		return nil, fmt.Errorf("server %q is no URL with https or http", cluster.Server)
	}
	transport, err := cluster.transport(dir)
	if err != nil {
		return nil, err
	}
	c := &Client{server: server, http: &http.Client{
		Transport: transport, Timeout: callTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // kube-apiserver sends none
	}}
	if server.Scheme == "http" {
		return c, nil // kubectl, too, sends no credentials where everybody can read them
	}
	return c, user.logIn(c, transport.TLSClientConfig, dir)
}

// of returns the cluster and user of a context.
func (k *kubeconfig) of(context string) (cluster, user, error) {
	if context == "" {
		context = k.CurrentContext
	}
	for _, c := range k.Contexts {
		if c.Name != context {
			continue
		}
		for _, one := range k.Clusters {
			if one.Name == c.Context.Cluster {
				return one.Cluster, k.user(c.Context.User), nil
			}
		}
		return cluster{}, user{}, fmt.Errorf("context %q names a cluster %q that is not there", context, c.Context.Cluster)
	}
	return cluster{}, user{}, fmt.Errorf("no context %q", context)
}

// user may be none: then the server is called as anybody.
func (k *kubeconfig) user(name string) user {
	for _, one := range k.Users {
		if one.Name == name {
			return one.User
		}
	}
	return user{}
}

func (c *cluster) transport(dir string) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     &tls.Config{ServerName: c.ServerName, InsecureSkipVerify: c.Insecure},
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	if c.ProxyURL != "" {
		proxy, err := url.Parse(c.ProxyURL)
		if err != nil {
			return nil, errors.New("proxy-url is no URL")
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	ca, err := content(c.CAData, c.CAFile, dir)
	if err != nil || ca == nil || c.Insecure {
		return t, err
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(ca) {
		return nil, errors.New("no certificate in the cluster's certificate-authority")
	}
	return t, nil
}

// logIn gives a client the user's credentials.
func (u *user) logIn(c *Client, t *tls.Config, dir string) error {
	switch {
	case u.Exec != nil:
		return fmt.Errorf("the user logs in with an exec plugin: %w", ErrCredentials)
	case u.AuthProvider != nil:
		return fmt.Errorf("the user logs in with an auth-provider: %w", ErrCredentials)
	case u.Username != "":
		return fmt.Errorf("the user logs in with a password: %w", ErrCredentials)
	case u.As != "":
		return fmt.Errorf("the user acts as somebody else (as:): %w", ErrCredentials)
	}
	c.token = u.Token
	if u.TokenFile != "" { // it wins in kubectl too
		token, err := content(nil, u.TokenFile, dir)
		if err != nil {
			return err
		}
		c.token = strings.TrimSpace(string(token))
	}
	certificate, err := content(u.CertificateData, u.CertificateFile, dir)
	if err != nil || certificate == nil {
		return err
	}
	key, err := content(u.KeyData, u.KeyFile, dir)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	t.Certificates = []tls.Certificate{pair}
	return nil
}

// content is data, or what a file holds, whose path may be relative to dir; nil without either.
func content(data []byte, file, dir string) ([]byte, error) {
	if len(data) > 0 || file == "" {
		return data, nil
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	return os.ReadFile(file)
}
