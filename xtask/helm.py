"""`helm template` as tests call it: Helm's own engine behind a command line of ours.

    helm template [--include-crds] [--no-hooks] [--namespace N] [--values FILE]... [--] NAME CHART
"""

import argparse
import sys

import helm_python as helm

# Rendering asks no cluster, and Helm wants to know of one all the same.
NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: ""}}]
current-context: nowhere
"""


def merged(values, more):
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        values[key] = merged(values[key], value) if both else value
    return values


def template(arguments):
    values = {}
    for file in arguments.values:
        with open(file) as text:
            merged(values, helm.values_from_yaml(text.read()))
    with helm.Config(kubeconfig_content=NOWHERE, namespace=arguments.namespace) as config:
        with helm.Chart.load(arguments.chart) as chart:
            for crd in chart.crds if arguments.include_crds else []:
                print("---\n" + crd["data"])
            release = config.install(chart, arguments.name, values, dry_run="client", namespace=arguments.namespace)
            print(release["manifest"])


parser = argparse.ArgumentParser(prog="helm")
command = parser.add_subparsers(required=True).add_parser("template")
command.set_defaults(run=template)
command.add_argument("--include-crds", action="store_true")
command.add_argument("--no-hooks", action="store_true", required=True, help="hooks are never rendered")
command.add_argument("--namespace", default="default")
command.add_argument("--values", action="append", default=[])
command.add_argument("name")
command.add_argument("chart")
arguments = parser.parse_args()
try:
    arguments.run(arguments)
except (helm.HelmError, OSError) as error:
    sys.exit(f"Error: {error}")
